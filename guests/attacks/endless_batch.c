/*
 * Way out: keep the CPU. A batch is as long as we say, and while Xen is at it no event is delivered
 * and no neighbour runs. We see it by an event that comes before the batch begins.
 * Rule: a call that takes long is made in pieces, with other business between them (do_mmu_update,
 * hypercall_preempt_check).
 * Check: hypervisor.hypercalls.mmu_batch.REQUESTS_PER_PIECE
 */
#include "attacks.h"

#include "events.h"

#define NR_UPDATES 4096
#define UNTOUCHED ((word)0x77)

static struct mmu_update batch[NR_UPDATES];
static struct multicall_entry calls[2];
static bool was_interrupted;

static void look(evtchn_port_t port, struct regs *regs)
{
    (void)port;
    (void)regs;
    was_interrupted = *(volatile word *)&calls[1].result == UNTOUCHED;
}

static void clear_what_is_clear(const void *page)
{
    for (int i = 0; i < NR_UPDATES; i++)
        batch[i].ptr = entry_maddr(pt_walk((word)page, 1));
}

ATTACK(endless_batch, "an event in the middle")
{
    struct evtchn_port_op send = { .port = event_bind_ipi(look) };

    calls[0] = (struct multicall_entry){ .op = __HYPERVISOR_event_channel_op,
                                         .args = { EVTCHNOP_send, (word)&send } };
    calls[1] = (struct multicall_entry){ .op = __HYPERVISOR_mmu_update,
                                         .result = UNTOUCHED,
                                         .args = { (word)batch, NR_UPDATES, 0, DOMID_SELF } };
    if (refused(map(own[0], 0, 0)))
        return;
    clear_what_is_clear(own[0]);
    events_enable();
    if (refused(hv_multicall(calls, 2)) || refused((long)calls[1].result))
        return;
    if (was_interrupted)
        outcome("an event in the middle");
    else
        escaped("nobody ran but us");
}
