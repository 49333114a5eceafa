/*
 * Way out: hide it in a batch that is long enough to be validated with array operations.
 * Rule: a batch gives what its updates give one by one, and stops at the first refusal.
 * Check: hypervisor.mm.bulk.Bulk._is_refused
 */
#include "attacks.h"

ATTACK(map_neighbour_batch, "-EBUSY")
{
    if (refused(many_updates()))
        return;
    requests[NR_REQUESTS / 2].ptr = entry_maddr(pt_walk((word)own[0], 1));
    requests[NR_REQUESTS / 2].val = make_pte(neighbours_mfn, READABLE);
    if (!refused(hv_mmu_update(requests, NR_REQUESTS, NULL)))
        finds_secret(own[0]);
}
