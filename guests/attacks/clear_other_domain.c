/*
 * Way out: clear a page of the neighbour's, named as what it is.
 * Rule: mmuext_op on behalf of another domain takes privilege (get_pg_owner).
 * Check: hypervisor.hypercalls.caller.Caller.require_target
 */
#include "attacks.h"

ATTACK(clear_other_domain, "-EPERM")
{
    struct mmuext_op op = { .cmd = MMUEXT_CLEAR_PAGE, .arg1.mfn = neighbours_mfn };

    if (!refused(hypercall(__HYPERVISOR_mmuext_op, (word)&op, 1, 0, neighbour, 0)))
        escaped("cleared a page of the neighbour's");
}
