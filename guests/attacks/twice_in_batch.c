/*
 * Way out: drop one mapping twice. In a batch that is long enough for array operations two updates
 * clear the same entry; what looks at all entries before it changes any finds it there both times,
 * and takes the frame for unmapped where it is still mapped writable elsewhere.
 * Rule: each update of a batch finds what the one before it has left (do_mmu_update).
 * Check: hypervisor.mm.bulk.Bulk._old
 */
#include "attacks.h"

static long clear_twice(const void *page)
{
    u64 entry = entry_maddr(pt_walk((word)page, 1));

    requests[NR_REQUESTS / 2].ptr = entry;
    requests[NR_REQUESTS / 2 + 1].ptr = entry;
    return hv_mmu_update(requests, NR_REQUESTS, NULL);
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
