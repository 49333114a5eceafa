/*
 * Way out: exchange a frame of the neighbour's for a new one of ours.
 * Rule: what is exchanged must be the domain's, and named by nothing else (steal_page).
 * Check: hypervisor.hypercalls.memory_exchange._stealable
 */
#include "attacks.h"

ATTACK(exchange_of_neighbour, "-EINVAL")
{
    word given = neighbours_mfn, taken = virt_to_pfn(own[0]);
    struct xen_memory_exchange exchange = {
        .in_ = { .extent_start = &given, .nr_extents = 1, .domid = DOMID_SELF },
        .out = { .extent_start = &taken, .nr_extents = 1, .domid = DOMID_SELF },
    };

    if (!refused(hv_memory_op(XENMEM_exchange, &exchange)))
        escaped("the neighbour has a frame less");
}
