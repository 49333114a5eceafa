/*
 * Way out: say openly that the frame is another domain's (update_va_mapping_otherdomain).
 * Rule: acting on another domain takes privilege (XSM_TARGET, get_pg_owner).
 * Check: hypervisor.hypercalls.caller.Caller.require_target
 */
#include "attacks.h"

static long map_of_other(word vaddr, pte_t l1e, domid_t domid)
{
#if IS_64
    return hypercall(__HYPERVISOR_update_va_mapping_otherdomain, vaddr, l1e, UVMF_INVLPG, domid, 0);
#else
    return hypercall(__HYPERVISOR_update_va_mapping_otherdomain, vaddr, (word)l1e,
                     (word)((u64)l1e >> 32), UVMF_INVLPG, domid);
#endif
}

ATTACK(map_other_domain, "-EPERM")
{
    pte_t l1e = make_pte(neighbours_mfn, READABLE);

    if (!refused(map_of_other((word)own[0], l1e, neighbour)))
        finds_secret(own[0]);
}
