/*
 * Way out: hide it in a batch that is long enough to be validated with array operations.
 * Rule: a batch gives what its updates give one by one, and stops at the first refusal.
 * Check: hypervisor.mm.bulk.Bulk._is_refused
 */
#include "attacks.h"

#define NR_UPDATES 256

static struct mmu_update requests[NR_UPDATES];

/* Enough of them for the array operations to be worth their import; the last one is the attack. */
static long many_updates(void)
{
    u64 entry = entry_maddr(pt_walk((word)own[1], 1));
    long err = 0;

    for (int i = 0; i < NR_UPDATES; i++)
        requests[i] = (struct mmu_update){ entry, make_pte(virt_to_mfn(own[1]), READABLE) };
    for (int round = 0; round < 300 && !err; round++)
        err = hv_mmu_update(requests, NR_UPDATES, NULL);
    return err;
}

ATTACK(map_neighbour_batch, "-EBUSY")
{
    if (refused(many_updates()))
        return;
    requests[NR_UPDATES / 2].ptr = entry_maddr(pt_walk((word)own[0], 1));
    requests[NR_UPDATES / 2].val = make_pte(neighbours_mfn, READABLE);
    if (!refused(hv_mmu_update(requests, NR_UPDATES, NULL)))
        finds_secret(own[0]);
}
