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
#define EVTCHNOP_bind_pirq 2
#define EVTCHNOP_close 3
#define EVTCHNOP_send 4
#define EVTCHNOP_status 5
#define EVTCHNOP_alloc_unbound 6
#define EVTCHNOP_bind_ipi 7
#define EVTCHNOP_bind_vcpu 8
#define EVTCHNOP_unmask 9
#define EVTCHNOP_reset 10
#define EVTCHNOP_init_control 11
#define EVTCHNOP_expand_array 12
#define EVTCHNOP_set_priority 13

/* Virtual interrupts, for bind_virq (public/xen.h). */
#define VIRQ_TIMER 0
#define VIRQ_DEBUG 1
#define VIRQ_CONSOLE 2
#define VIRQ_DOM_EXC 3

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

struct evtchn_bind_pirq {
    u32 pirq;
    u32 flags;
    evtchn_port_t port; /* out */
};
_Static_assert(sizeof(struct evtchn_bind_pirq) == 12, "");

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

/* ---- the FIFO ABI: a word for each port, queues by priority and vCPU ---- */

typedef u32 event_word_t;

#define EVTCHN_FIFO_PENDING 31 /* bit numbers */
#define EVTCHN_FIFO_MASKED 30
#define EVTCHN_FIFO_LINKED 29
#define EVTCHN_FIFO_BUSY 28
#define EVTCHN_FIFO_LINK_BITS 17
#define EVTCHN_FIFO_LINK_MASK ((1u << EVTCHN_FIFO_LINK_BITS) - 1)
#define EVTCHN_FIFO_PRIORITY_DEFAULT 7
#define EVTCHN_FIFO_PRIORITY_MIN 15
#define EVTCHN_FIFO_MAX_QUEUES 16

/* A vCPU's queues: bit n of ready says that queue n has something, head[n] where it begins. */
struct evtchn_fifo_control_block {
    u32 ready;
    u32 _rsvd;
    event_word_t head[EVTCHN_FIFO_MAX_QUEUES];
};
_Static_assert(sizeof(struct evtchn_fifo_control_block) == 72, "");

struct evtchn_init_control {
    u64 control_gfn;
    u32 offset; /* of the control block in the frame */
    u32 vcpu;
    u8 link_bits; /* out */
    u8 _pad[7];
};
_Static_assert(sizeof(struct evtchn_init_control) == 24, "");

struct evtchn_expand_array {
    u64 array_gfn;
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
