/*
 * The 2-level ABI (public/event_channel.h; evtchn_2l_set_pending in Xen's common/event_2l.c): a bit
 * for each port in shared_info, a bit for each word of them in the vCPU's selector.
 */
#include "ports.h"

static void unmask_bit(evtchn_port_t port)
{
    shared_info->evtchn_mask[port / WORD_BITS] &= ~((word)1 << port % WORD_BITS);
}

static bool is_selected(evtchn_port_t port)
{
    return vcpu_info()->evtchn_pending_sel >> port / WORD_BITS & 1;
}

/* ---- binding ---- */

static void test_binding(void)
{
    struct evtchn_bind_interdomain again = { .remote_dom = DOMID_SELF };
    evtchn_port_t far = make_unbound(), near = make_loopback(far), other;

    check_true("2l.bind.pending", "bind_interdomain leaves the new port pending",
               event_is_pending(near) && !event_is_pending(far));
    check_equal("2l.bind.status", "both ends are interdomain", EVTCHNSTAT_interdomain,
                status_of(far));
    again.remote_port = far;
    expect("2l.bind.twice", "a port is bound once", -XEN_EINVAL,
           hv_event_channel_op(EVTCHNOP_bind_interdomain, &again));
    event_clear_pending(near);
    take_upcall();
    hv_evtchn_send(near);
    check_true("2l.send.far", "send: pending at the other end, and only there",
               event_is_pending(far) && !event_is_pending(near));
    expect("2l.close", "close", 0, hv_evtchn_close(near));
    check_equal("2l.close.peer", "leaves the other end unbound", EVTCHNSTAT_unbound,
                status_of(far));
    other = make_ipi();
    check_equal("2l.lowest", "the lowest free port is given", near, other);
    hv_evtchn_close(other);
    hv_evtchn_send(far);
    expect("2l.close.free", "a closed port is not closed again", -XEN_EINVAL,
           hv_evtchn_close(near));
    hv_evtchn_close(far);
    check_true("2l.close.clears", "close forgets what was pending", !event_is_pending(far));
}

static void test_refusals(void)
{
    struct evtchn_bind_pirq pirq = { .pirq = 4 };
    struct evtchn_expand_array array = { .array_gfn = 0 };
    evtchn_port_t ipi = make_ipi(), virq, port;

    expect("2l.virq", "bind_virq", 0, bind_virq(VIRQ_DEBUG, 0, &virq));
    expect("2l.virq.twice", "once for each vCPU", -XEN_EEXIST, bind_virq(VIRQ_DEBUG, 0, &port));
    expect("2l.virq.range", "there are 24 VIRQs", -XEN_EINVAL, bind_virq(24, 0, &port));
    expect("2l.virq.global", "a global VIRQ is bound on vCPU 0", -XEN_EINVAL,
           bind_virq(VIRQ_DOM_EXC, 1, &port));
    expect("2l.virq.vcpu", "a vCPU's own needs the vCPU", -XEN_ENOENT,
           bind_virq(VIRQ_TIMER, NO_VCPU, &port));
    expect("2l.vcpu.ipi", "an IPI stays on its vCPU (bind_vcpu)", -XEN_EINVAL, bind_vcpu(ipi, 0));
    expect("2l.vcpu.virq", "so does a vCPU's own VIRQ", -XEN_EINVAL, bind_vcpu(virq, 0));
    expect("2l.vcpu.absent", "a missing vCPU is found out first", -XEN_ENOENT,
           bind_vcpu(NO_PORT, NO_VCPU));
    expect("2l.send.virq", "a VIRQ is not sent", -XEN_EINVAL, hv_evtchn_send(virq));
    expect("2l.send.absent", "nor a port that does not exist", -XEN_EINVAL,
           hv_evtchn_send(NO_PORT));
    expect("2l.priority", "bitmaps have no priorities", -XEN_ENOSYS, set_priority(ipi, 1));
    expect("2l.array", "nor an array", -XEN_EOPNOTSUPP,
           hv_event_channel_op(EVTCHNOP_expand_array, &array));
    if (is_dom0)
        check_skip("2l.pirq", "physical interrupts", "dom0 may have them");
    else
        expect("2l.pirq", "a domU has no physical interrupts", -XEN_EPERM,
               hv_event_channel_op(EVTCHNOP_bind_pirq, &pirq));
    hv_evtchn_close(ipi);
    hv_evtchn_close(virq);
}

/* ---- pending, mask, selector ---- */

static void test_bits(void)
{
    evtchn_port_t port = make_ipi();

    event_mask(port);
    take_upcall();
    hv_evtchn_send(port);
    check_true("2l.masked", "a masked port is pending, without selector or upcall",
               event_is_pending(port) && !is_selected(port) && !take_upcall());
    hv_evtchn_unmask(port);
    check_true("2l.unmask", "unmask raises what was waiting",
               is_selected(port) && vcpu_info()->evtchn_upcall_pending);
    take_upcall();
    hv_evtchn_unmask(port);
    check_true("2l.unmask.again", "unmasking an unmasked port does not", !take_upcall());
    hv_evtchn_send(port);
    check_true("2l.again", "an event that is pending already is no news", !take_upcall());
    event_clear_pending(port);
    hv_evtchn_send(port);
    check_true("2l.upcall", "a new one sets pending bit, selector and upcall",
               event_is_pending(port) && is_selected(port) && take_upcall());
    event_mask(port);
    unmask_bit(port);
    hv_xen_version(XENVER_version, NULL);
    check_true("2l.own-unmask", "clearing the mask bit oneself raises nothing: look, or ask Xen",
               !take_upcall());
    event_clear_pending(port);
    hv_evtchn_close(port);
}

/* ---- the upcall ---- */

static volatile unsigned handled;
static volatile u8 mask_inside, saved_mask;

static void handler(evtchn_port_t port, struct regs *regs)
{
    (void)port;
    handled++;
    mask_inside = vcpu_info()->evtchn_upcall_mask;
    saved_mask = regs->saved_mask;
}

static void test_upcall(void)
{
    evtchn_port_t port = event_bind_ipi(handler);

    events_disable();
    hv_evtchn_send(port);
    check_equal("2l.held", "with the upcall masked nothing is delivered", 0, handled);
    hv_sched_block();
    check_equal("2l.block", "SCHEDOP_block unmasks and looks in one step: no wake-up is lost", 1,
                handled);
    check_equal("2l.inside", "the handler runs masked", 1, mask_inside);
    check_equal("2l.saved", "and finds the old mask in its frame", 0, saved_mask);
    hv_evtchn_send(port);
    check_equal("2l.at-once", "unmasked, the event is delivered at the hypercall's return", 2,
                handled);
    events_disable();
    event_close(port);
}

void test_two_level(void)
{
    test_binding();
    test_refusals();
    test_bits();
    test_upcall();
    take_upcall();
}
