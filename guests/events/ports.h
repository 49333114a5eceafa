/* What both halves of `events` use: a port of each kind, and checks that name an error number. */
#ifndef EVENTS_PORTS_H
#define EVENTS_PORTS_H

#include "events.h"
#include "hypercall.h"
#include "report.h"

extern bool is_dom0;

#define NO_PORT 9999
#define NO_VCPU 77

/* The result of a hypercall, as the number it is. */
void expect(const char *id, const char *rule, long want, long got);

/* A port that this domain may bind to itself. */
evtchn_port_t make_unbound(void);
/* Its other end: both ports are interdomain afterwards, and the new one pending. */
evtchn_port_t make_loopback(evtchn_port_t unbound);
evtchn_port_t make_ipi(void);
long bind_virq(u32 virq, u32 vcpu, evtchn_port_t *port);
long bind_vcpu(evtchn_port_t port, u32 vcpu);
long set_priority(evtchn_port_t port, u32 priority);
u32 status_of(evtchn_port_t port);

/* Does vCPU 0 have an upcall waiting? It has none afterwards. */
bool take_upcall(void);

void test_two_level(void);
void test_fifo(void);

#endif
