/*
 * Way out: take ports until there are more than the bitmaps have bits. An event at one beyond them
 * is a bit that Xen sets in whatever lies behind.
 * Rule: a domain has as many ports as the ABI in use can name (evtchn_get_port, max_evtchns).
 * Check: hypervisor.events.channels.nr_ports
 */
#include "attacks.h"

#define NR_PORTS (8 * sizeof(word) * 8 * sizeof(word))

ATTACK(port_flood, "-ENOSPC")
{
    struct evtchn_alloc_unbound unbound = { .dom = DOMID_SELF, .remote_dom = DOMID_SELF };

    do {
        if (refused(hv_event_channel_op(EVTCHNOP_alloc_unbound, &unbound)))
            return;
    } while (unbound.port < NR_PORTS);
    escaped("a port that has no bit");
}
