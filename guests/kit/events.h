/* Event channels from the receiving side, by the two-level bitmaps in shared_info. */
#ifndef KIT_EVENTS_H
#define KIT_EVENTS_H

#include "traps.h"
#include "xen/event_channel.h"
#include "xen/shared_info.h"

extern struct shared_info *shared_info;

/* Which vCPU this is: smp.c can tell once there are several. */
extern bool smp_on;
unsigned smp_vcpu_id(void);

static inline unsigned vcpu_id(void)
{
    return smp_on ? smp_vcpu_id() : 0;
}

static inline struct vcpu_info *vcpu_info(void)
{
    return &shared_info->vcpu_info[vcpu_id()];
}

/* Maps shared_info. Before this there is a private stand-in whose mask is set. */
void events_init(word shared_info_maddr);

/* Called in an upcall, events masked; regs are those of what was interrupted. */
typedef void (*event_handler)(evtchn_port_t port, struct regs *regs);

/* All ports start masked. This sets the handler, and lets the port through. */
void event_set_handler(evtchn_port_t port, event_handler handler);
evtchn_port_t event_bind_virq(u32 virq, event_handler handler);
/* A port to oneself: hv_evtchn_send rings it. */
evtchn_port_t event_bind_ipi(event_handler handler);
/* The same for other vCPUs: the handler runs there. */
evtchn_port_t event_bind_virq_on(unsigned vcpu, u32 virq, event_handler handler);
evtchn_port_t event_bind_ipi_on(unsigned vcpu, event_handler handler);
void event_close(evtchn_port_t port);

/* The virtual cli and sti. Enabling takes what became due while events were masked. */
static inline void events_disable(void)
{
    vcpu_info()->evtchn_upcall_mask = 1;
    barrier();
}
void events_enable(void);

bool event_is_pending(evtchn_port_t port);
void event_clear_pending(evtchn_port_t port);
void event_mask(evtchn_port_t port);

/* What Xen calls. */
void events_upcall(struct regs *regs);

#endif
