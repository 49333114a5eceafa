/*
 * Way out: change the neighbour's memory as a domain builder would: mmu_update on its behalf.
 * Rule: another domain's frames are for the privileged (do_mmu_update, XSM on pt_owner).
 * Check: hypervisor.hypercalls.caller.Caller.require_target
 */
#include "attacks.h"

ATTACK(update_other_domain, "-EPERM")
{
    struct mmu_update request = { .ptr = (u64)neighbours_mfn << PAGE_SHIFT, .val = 1 };
    word foreign = (word)(neighbour + 1) << 16 | DOMID_SELF;

    if (!refused(hypercall(__HYPERVISOR_mmu_update, (word)&request, 1, 0, foreign, 0)))
        escaped("wrote the neighbour's memory");
}
