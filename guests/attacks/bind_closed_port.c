/*
 * Way out: connect to a port of the neighbour's that was offered to somebody else, or to nobody.
 * Rule: an event channel has two willing ends (evtchn_bind_interdomain).
 * Check: hypervisor.events.channels.EventChannels._is_open_to
 */
#include "attacks.h"

ATTACK(bind_closed_port, "-EINVAL")
{
    struct evtchn_bind_interdomain bind = { .remote_dom = neighbour, .remote_port = 1 };

    if (!refused(hv_event_channel_op(EVTCHNOP_bind_interdomain, &bind)))
        escaped("took the neighbour's channel to xenstore");
}
