/* event_channel_op (Xen's common/event_channel.c). */
#include "events.h"
#include "refusals.h"
#include "xen/event_channel.h"

static void ignore(evtchn_port_t port, struct regs *regs)
{
    (void)port;
    (void)regs;
}

static long alloc_unbound(domid_t dom, domid_t remote_dom, evtchn_port_t *port)
{
    struct evtchn_alloc_unbound alloc = { .dom = dom, .remote_dom = remote_dom };
    long err = hv_event_channel_op(EVTCHNOP_alloc_unbound, &alloc);

    *port = alloc.port;
    return err;
}

static long bind_interdomain(domid_t remote_dom, evtchn_port_t remote_port)
{
    struct evtchn_bind_interdomain bind = { .remote_dom = remote_dom, .remote_port = remote_port };

    return hv_event_channel_op(EVTCHNOP_bind_interdomain, &bind);
}

static long bind_virq(u32 virq, u32 vcpu)
{
    struct evtchn_bind_virq bind = { .virq = virq, .vcpu = vcpu };

    return hv_event_channel_op(EVTCHNOP_bind_virq, &bind);
}

static long bind_ipi(u32 vcpu)
{
    struct evtchn_bind_ipi bind = { .vcpu = vcpu };

    return hv_event_channel_op(EVTCHNOP_bind_ipi, &bind);
}

static long bind_vcpu(evtchn_port_t port, u32 vcpu)
{
    struct evtchn_bind_vcpu bind = { .port = port, .vcpu = vcpu };

    return hv_event_channel_op(EVTCHNOP_bind_vcpu, &bind);
}

static long status_of(domid_t dom, evtchn_port_t port, u32 *status)
{
    struct evtchn_status arg = { .dom = dom, .port = port, .status = 77 };
    long err = hv_event_channel_op(EVTCHNOP_status, &arg);

    *status = arg.status;
    return err;
}

static void test_arguments(void)
{
    expect("evtchn.unknown", "an operation that does not exist", -XEN_ENOSYS,
           hv_event_channel_op(NO_OPERATION, UNMAPPED));
    expect("evtchn.unmapped", "an argument that is not mapped", -XEN_EFAULT,
           hv_event_channel_op(EVTCHNOP_send, UNMAPPED));
    expect("evtchn.xens", "an argument in Xen's region", -XEN_EFAULT,
           hv_event_channel_op(EVTCHNOP_send, xens));
}

static void test_binding(evtchn_port_t ipi)
{
    evtchn_port_t unbound, foreign;

    expect("unbound.no-dom", "a port for a domain that does not exist", -XEN_ESRCH,
           alloc_unbound(NO_DOMAIN, DOMID_SELF, &unbound));
    expect("unbound.any-remote", "but anyone may be waited for", 0,
           alloc_unbound(DOMID_SELF, NO_DOMAIN, &foreign));
    expect("interdomain.no-dom", "nobody is there", -XEN_ESRCH, bind_interdomain(NO_DOMAIN, 1));
    expect("interdomain.no-port", "the port is beyond his table", -XEN_EINVAL,
           bind_interdomain(DOMID_SELF, NO_PORT));
    expect("interdomain.port-0", "port 0 is nobody's", -XEN_EINVAL,
           bind_interdomain(DOMID_SELF, 0));
    expect("interdomain.bound", "it is bound to something else", -XEN_EINVAL,
           bind_interdomain(DOMID_SELF, ipi));
    expect("interdomain.foreign", "it waits for somebody else", -XEN_EINVAL,
           bind_interdomain(DOMID_SELF, foreign));
    expect("close.unbound", "a port that nobody bound can be closed", 0, hv_evtchn_close(foreign));
}

static void test_virqs(evtchn_port_t timer)
{
    expect("virq.beyond", "there are 24", -XEN_EINVAL, bind_virq(24, 0));
    expect("virq.negative", "an int to Xen", -XEN_EINVAL, bind_virq(0xffffffff, 0));
    expect("virq.global", "VIRQ_CONSOLE is bound on vCPU 0", -XEN_EINVAL, bind_virq(2, 1));
    expect("virq.arch", "and so are the architecture's", -XEN_EINVAL, bind_virq(16, 1));
    expect("virq.no-vcpu", "VIRQ_TIMER on a vCPU that is not there", -XEN_ENOENT,
           bind_virq(VIRQ_TIMER, NO_VCPU));
    expect("virq.xenoprof", "VIRQ_XENOPROF is a vCPU's as well", -XEN_ENOENT, bind_virq(7, NO_VCPU));
    expect("virq.twice", "VIRQ_TIMER is bound already", -XEN_EEXIST, bind_virq(VIRQ_TIMER, 0));
    expect("ipi.no-vcpu", "no such vCPU", -XEN_ENOENT, bind_ipi(NO_VCPU));
    expect("send.virq", "a virtual interrupt is Xen's to send", -XEN_EINVAL, hv_evtchn_send(timer));
}

static void test_bind_vcpu(evtchn_port_t ipi, evtchn_port_t timer)
{
    expect("bind-vcpu.no-vcpu", "no such vCPU", -XEN_ENOENT, bind_vcpu(ipi, NO_VCPU));
    expect("bind-vcpu.no-port", "no such port", -XEN_EINVAL, bind_vcpu(NO_PORT, 0));
    expect("bind-vcpu.free", "a port that is not in use", -XEN_EINVAL, bind_vcpu(60, 0));
    expect("bind-vcpu.ipi", "an IPI's vCPU is fixed", -XEN_EINVAL, bind_vcpu(ipi, 0));
    expect("bind-vcpu.timer", "and that of a vCPU's own VIRQ", -XEN_EINVAL, bind_vcpu(timer, 0));
}

/* Ports come in buckets of 64, so that one may be valid without being in use. */
static void test_ports(void)
{
    struct evtchn_reset reset = { .dom = NO_DOMAIN };
    struct evtchn_set_priority priority = { .port = 0, .priority = 7 };
    u32 status;

    expect("close.0", "port 0 is nobody's", -XEN_EINVAL, hv_evtchn_close(0));
    expect("close.free", "a free one", -XEN_EINVAL, hv_evtchn_close(60));
    expect("close.beyond", "one beyond the table", -XEN_EINVAL, hv_evtchn_close(NO_PORT));
    expect("send.0", "port 0 again", -XEN_EINVAL, hv_evtchn_send(0));
    expect("send.free", "a free one", -XEN_EINVAL, hv_evtchn_send(60));
    expect("send.beyond", "one beyond the table", -XEN_EINVAL, hv_evtchn_send(NO_PORT));
    expect("unmask.0", "unmasking one without use does nothing", 0, hv_evtchn_unmask(0));
    expect("unmask.free", "free or reserved", 0, hv_evtchn_unmask(60));
    expect("unmask.beyond", "but it must be in the table", -XEN_EINVAL, hv_evtchn_unmask(NO_PORT));
    expect("status.0", "the status of port 0 can be asked", 0, status_of(DOMID_SELF, 0, &status));
    expect("status.0-closed", "it is closed", EVTCHNSTAT_closed, status);
    expect("status.free", "as is a free one", 0, status_of(DOMID_SELF, 60, &status));
    expect("status.free-closed", "closed too", EVTCHNSTAT_closed, status);
    expect("status.beyond", "beyond the table", -XEN_EINVAL,
           status_of(DOMID_SELF, NO_PORT, &status));
    expect("status.no-dom", "of nobody", -XEN_ESRCH, status_of(NO_DOMAIN, 1, &status));
    expect("reset.no-dom", "nobody's ports", -XEN_ESRCH,
           hv_event_channel_op(EVTCHNOP_reset, &reset));
    expect("priority.two-level", "only FIFO ports have priorities", -XEN_ENOSYS,
           hv_event_channel_op(EVTCHNOP_set_priority, &priority));
}

void test_event_channels(void)
{
    evtchn_port_t ipi = event_bind_ipi(ignore), timer = event_bind_virq(VIRQ_TIMER, ignore);

    test_arguments();
    test_binding(ipi);
    test_virqs(timer);
    test_bind_vcpu(ipi, timer);
    test_ports();
    event_close(ipi);
    event_close(timer);
}
