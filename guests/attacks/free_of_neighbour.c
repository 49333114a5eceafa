/*
 * Way out: give the neighbour's memory back on its behalf.
 * Rule: another domain's reservation is for the privileged (rcu_lock_remote_domain, XSM_TARGET).
 * Check: hypervisor.hypercalls.caller.Caller.require_target
 */
#include "attacks.h"

ATTACK(free_of_neighbour, "none done")
{
    if (release_frame(neighbours_mfn, neighbour) == 1)
        escaped("gave a frame of the neighbour's back");
    else
        outcome("none done");
}
