/*
 * Way out: shut the neighbour down.
 * Rule: ending another domain takes privilege (sched_op, XSM on remote_shutdown).
 * Check: hypervisor.hypercalls.sched._require_privilege
 */
#include "attacks.h"

ATTACK(end_neighbour, "-EPERM")
{
    struct sched_remote_shutdown end = { neighbour, SHUTDOWN_poweroff };

    if (!refused(hypercall(__HYPERVISOR_sched_op, SCHEDOP_remote_shutdown, (word)&end, 0, 0, 0)))
        escaped("the neighbour is off");
}
