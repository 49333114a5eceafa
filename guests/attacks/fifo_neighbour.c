/*
 * Way out: let the words of our events lie in the neighbour's memory; Xen writes one at every event.
 * Rule: the frame must be the domain's (map_guest_page).
 * Check: hypervisor.mm.frames.FrameTable.get_page
 */
#include "attacks.h"

ATTACK(fifo_neighbour, "-EINVAL")
{
    struct evtchn_fifo_control control = { .mfn = virt_to_mfn(own[0]) };
    struct evtchn_fifo_array array = { .mfn = neighbours_mfn };

    if (refused(hv_event_channel_op(FIFO_INIT_CONTROL, &control)) ||
        refused(hv_event_channel_op(FIFO_EXPAND_ARRAY, &array)))
        return;
    escaped("Xen writes events into the neighbour's memory");
}
