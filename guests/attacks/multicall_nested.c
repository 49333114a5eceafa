/*
 * Way out: a list of calls with a list of calls in it, and so on, until Xen has no stack left. Two
 * deep is enough to see.
 * Rule: a list is not called from a list (do_multicall).
 * Check: hypervisor.hypercalls.multicall._call
 */
#include "attacks.h"

ATTACK(multicall_nested, "-EINVAL")
{
    static struct multicall_entry inner = { .op = __HYPERVISOR_xen_version };
    struct multicall_entry outer = { .op = __HYPERVISOR_multicall, .args = { (word)&inner, 1 } };

    if (!refused(hv_multicall(&outer, 1)) && !refused((long)outer.result))
        escaped("Xen calls itself as deep as we like");
}
