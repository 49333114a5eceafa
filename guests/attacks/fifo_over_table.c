/*
 * Way out: let the control block of our event queues lie in a page table. Where Xen notes the first
 * port of a queue, a number becomes an entry.
 * Rule: the frame must be ordinary memory (map_control_block).
 * Check: hypervisor.mm.page_types.PageTypes._refuse_type
 */
#include "attacks.h"

ATTACK(fifo_over_table, "-EINVAL")
{
    struct evtchn_fifo_control control = { .mfn = virt_to_mfn(own[0]) };

    if (refused(hang_table(own[0])) ||
        refused(hv_event_channel_op(FIFO_INIT_CONTROL, &control)))
        return;
    escaped("Xen writes events into a page table");
}
