/*
 * Upcalls: when Xen calls the event callback, and when not (public/xen.h, struct vcpu_info).
 *
 * A port that is rung sets its pending bit. Unless the port is masked that sets a selector bit and
 * evtchn_upcall_pending; unless the vCPU's upcall mask is set, Xen then calls back at its next
 * return to the guest, with the mask set, as a processor clears IF on an interrupt.
 */
#include "case.h"
#include "events.h"
#include "hypercall.h"
#include "start.h"

static unsigned calls;
static struct {
    word ip, flags;
    u16 cs;
    u8 mask, saved_mask;
} upcall;

static void count(evtchn_port_t port, struct regs *regs)
{
    (void)port;
    calls++;
    upcall.ip = regs->ip;
    upcall.flags = regs->flags;
    upcall.cs = regs->cs;
    upcall.mask = vcpu_info()->evtchn_upcall_mask;
    upcall.saved_mask = regs->saved_mask;
}

static void test_delivery(evtchn_port_t port)
{
    calls = 0;
    events_enable();
    hv_evtchn_send(port);
    events_disable();
    check_equal("event.call", "an enabled event calls back before send returns", 1, calls);
    check_equal("event.mask", "upcalls are masked in the callback", 1, upcall.mask);
    check_equal("event.saved", "the frame has the mask from before", 0, upcall.saved_mask);
    check_true("event.if", "and IF as its opposite", upcall.flags & FLAG_IF);
    check_equal("event.after", "the iret hypercall unmasks again", 1,
                calls == 1 && !event_is_pending(port));
}

static void test_masked_vcpu(evtchn_port_t port)
{
    calls = 0;
    events_disable();
    hv_evtchn_send(port);
    check_equal("event.held", "a masked vCPU is not called", 0, calls);
    check_true("event.pending", "the port is pending", event_is_pending(port));
    check_true("event.upcall-pending", "and evtchn_upcall_pending says so",
               vcpu_info()->evtchn_upcall_pending);
    vcpu_info()->evtchn_upcall_mask = 0;
    barrier();
    hv_xen_version(XENVER_version, NULL);
    events_disable();
    check_equal("event.unmask-vcpu", "unmasked, the next hypercall delivers it", 1, calls);
}

static void test_masked_port(evtchn_port_t port)
{
    calls = 0;
    event_mask(port);
    events_enable();
    hv_evtchn_send(port);
    check_equal("event.port-masked", "a masked port calls nobody", 0, calls);
    check_true("event.port-pending", "but is pending", event_is_pending(port));
    hv_evtchn_unmask(port);
    events_disable();
    check_equal("event.unmask-port", "EVTCHNOP_unmask raises it", 1, calls);
}

static void test_twice(evtchn_port_t port)
{
    calls = 0;
    events_disable();
    hv_evtchn_send(port);
    hv_evtchn_send(port);
    events_enable();
    events_disable();
    check_equal("event.merge", "two sends before the callback are one", 1, calls);
}

/* The iret hypercall takes the mask from IF; what is due then comes before the next instruction. */
static void test_iret_unmasks(evtchn_port_t port)
{
    PROVOKE(plain_ud2, "", "ud2");
    struct trap_seen seen;

    calls = 0;
    events_enable();
    events_disable();
    provoke(plain_ud2, &seen);
    hv_evtchn_send(port);
    check_equal("event.still-held", "a trap with IF 0 in its frame leaves the mask set", 0, calls);
    events_enable();
    events_disable();
}

static void test_interdomain(void)
{
    struct evtchn_alloc_unbound unbound = { .dom = DOMID_SELF, .remote_dom = DOMID_SELF };
    struct evtchn_bind_interdomain bind;
    long err;

    err = hv_event_channel_op(EVTCHNOP_alloc_unbound, &unbound);
    check_equal("evtchn.unbound", "a port for ourselves to bind to", 0, (u64)err);
    bind = (struct evtchn_bind_interdomain){ .remote_dom = DOMID_SELF,
                                             .remote_port = unbound.port };
    err = hv_event_channel_op(EVTCHNOP_bind_interdomain, &bind);
    check_equal("evtchn.loopback", "bind_interdomain to it", 0, (u64)err);
    check_true("evtchn.bind-pending",
               "binding makes the new port pending: sends may have been lost", event_is_pending(bind.local_port));
    event_clear_pending(bind.local_port);
    event_set_handler(unbound.port, count);
    calls = 0;
    events_enable();
    hv_evtchn_send(bind.local_port);
    events_disable();
    check_equal("evtchn.other-end", "a send arrives at the other end", 1, calls);
    check_true("evtchn.this-end", "and not at this one", !event_is_pending(bind.local_port));
    event_close(bind.local_port);
    event_close(unbound.port);
    check_equal("evtchn.closed", "a closed port cannot be rung", (u64)-XEN_EINVAL,
                (u64)hv_evtchn_send(bind.local_port));
}

void test_events(void)
{
    evtchn_port_t port = event_bind_ipi(count);

    test_delivery(port);
    test_masked_vcpu(port);
    test_masked_port(port);
    test_twice(port);
    test_iret_unmasks(port);
    event_close(port);
    test_interdomain();
}
