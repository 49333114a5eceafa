/*
 * Way out: ask what the neighbour's ports are bound to.
 * Rule: another domain's ports are for the privileged (evtchn_status, XSM_TARGET).
 * Check: hypervisor.hypercalls.caller.Caller.require_target
 */
#include "attacks.h"

ATTACK(spy_on_ports, "-EPERM")
{
    struct evtchn_status status = { .dom = neighbour, .port = 1 };

    if (!refused(hv_event_channel_op(EVTCHNOP_status, &status)))
        escaped("the neighbour's ports are known");
}
