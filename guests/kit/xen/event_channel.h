/*
 * Event channels: numbered bits that somebody else sets (public/event_channel.h). Each operation of
 * hypercall event_channel_op has a structure of its own.
 */
#ifndef KIT_XEN_EVENT_CHANNEL_H
#define KIT_XEN_EVENT_CHANNEL_H

#include "../types.h"

typedef u16 domid_t;
typedef u32 evtchn_port_t;

#define DOMID_SELF ((domid_t)0x7ff0)

#define EVTCHNOP_bind_interdomain 0
#define EVTCHNOP_bind_virq 1
#define EVTCHNOP_close 3
#define EVTCHNOP_send 4
#define EVTCHNOP_status 5
#define EVTCHNOP_alloc_unbound 6
#define EVTCHNOP_bind_ipi 7
#define EVTCHNOP_bind_vcpu 8
#define EVTCHNOP_unmask 9
#define EVTCHNOP_reset 10
#define EVTCHNOP_set_priority 13

/* Virtual interrupts, for bind_virq (public/xen.h). */
#define VIRQ_TIMER 0

struct evtchn_alloc_unbound {
    domid_t dom, remote_dom; /* in: whose port, and who may bind to it */
    evtchn_port_t port;      /* out */
};
_Static_assert(sizeof(struct evtchn_alloc_unbound) == 8, "");

struct evtchn_bind_interdomain {
    domid_t remote_dom;
    evtchn_port_t remote_port;
    evtchn_port_t local_port; /* out */
};
_Static_assert(sizeof(struct evtchn_bind_interdomain) == 12, "");

struct evtchn_bind_virq {
    u32 virq;
    u32 vcpu;
    evtchn_port_t port; /* out */
};
_Static_assert(sizeof(struct evtchn_bind_virq) == 12, "");

struct evtchn_bind_ipi {
    u32 vcpu;
    evtchn_port_t port; /* out */
};
_Static_assert(sizeof(struct evtchn_bind_ipi) == 8, "");

/* close, send and unmask all take one port. */
struct evtchn_bind_vcpu {
    evtchn_port_t port;
    u32 vcpu;
};

struct evtchn_reset {
    domid_t dom;
};

struct evtchn_set_priority {
    evtchn_port_t port;
    u32 priority;
};

struct evtchn_port_op {
    evtchn_port_t port;
};

#define EVTCHNSTAT_closed 0
#define EVTCHNSTAT_unbound 1
#define EVTCHNSTAT_interdomain 2
#define EVTCHNSTAT_virq 4
#define EVTCHNSTAT_ipi 5

struct evtchn_status {
    domid_t dom; /* in */
    evtchn_port_t port;
    u32 status;  /* out: EVTCHNSTAT_* */
    u32 vcpu;
    union {
        struct {
            domid_t dom;
        } unbound;
        struct {
            domid_t dom;
            evtchn_port_t port;
        } interdomain;
        u32 pirq;
        u32 virq;
    } u;
};
_Static_assert(sizeof(struct evtchn_status) == 24, "");

#endif
