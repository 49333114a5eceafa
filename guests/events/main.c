/*
 * events: event channels, by the bitmaps of shared_info first and then by the queues of the FIFO
 * ABI, to which a domain goes over for good (but for a reset of all its ports).
 *
 * Events stay masked nearly all the time, so that what Xen has done can be looked at, bit by bit.
 */
#include "console.h"
#include "ports.h"
#include "start.h"

const char guest_name[] = "events";

bool is_dom0;

void expect(const char *id, const char *rule, long want, long got)
{
    char want_text[24], got_text[24];

    format(want_text, sizeof(want_text), "%ld", want);
    format(got_text, sizeof(got_text), "%ld", got);
    check_text(id, rule, want_text, got_text);
}

static void must(const char *what, long err)
{
    if (err)
        panic("%s: error %ld", what, err);
}

evtchn_port_t make_unbound(void)
{
    struct evtchn_alloc_unbound alloc = { .dom = DOMID_SELF, .remote_dom = DOMID_SELF };

    must("alloc_unbound", hv_event_channel_op(EVTCHNOP_alloc_unbound, &alloc));
    return alloc.port;
}

evtchn_port_t make_loopback(evtchn_port_t unbound)
{
    struct evtchn_bind_interdomain bind = { .remote_dom = DOMID_SELF, .remote_port = unbound };

    must("bind_interdomain", hv_event_channel_op(EVTCHNOP_bind_interdomain, &bind));
    return bind.local_port;
}

evtchn_port_t make_ipi(void)
{
    struct evtchn_bind_ipi bind = { .vcpu = 0 };

    must("bind_ipi", hv_event_channel_op(EVTCHNOP_bind_ipi, &bind));
    return bind.port;
}

long bind_virq(u32 virq, u32 vcpu, evtchn_port_t *port)
{
    struct evtchn_bind_virq bind = { .virq = virq, .vcpu = vcpu };
    long err = hv_event_channel_op(EVTCHNOP_bind_virq, &bind);

    *port = bind.port;
    return err;
}

long bind_vcpu(evtchn_port_t port, u32 vcpu)
{
    struct evtchn_bind_vcpu bind = { .port = port, .vcpu = vcpu };

    return hv_event_channel_op(EVTCHNOP_bind_vcpu, &bind);
}

long set_priority(evtchn_port_t port, u32 priority)
{
    struct evtchn_set_priority set = { .port = port, .priority = priority };

    return hv_event_channel_op(EVTCHNOP_set_priority, &set);
}

u32 status_of(evtchn_port_t port)
{
    struct evtchn_status status = { .dom = DOMID_SELF, .port = port };

    must("status", hv_event_channel_op(EVTCHNOP_status, &status));
    return status.status;
}

bool take_upcall(void)
{
    vcpu_info()->evtchn_pending_sel = 0;
    return __atomic_exchange_n(&vcpu_info()->evtchn_upcall_pending, 0, __ATOMIC_SEQ_CST);
}

void guest_main(const struct start_info *si)
{
    is_dom0 = si->flags & SIF_INITDOMAIN;
    print("events: %s\n", WIDTH_NAME);
    events_disable();
    test_two_level();
    test_fifo();
    report_and_exit();
}
