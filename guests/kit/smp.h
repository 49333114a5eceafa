/*
 * Several virtual CPUs (public/vcpu.h). One runs when Xen starts the kernel; the others are given
 * registers and a stack, and brought up.
 */
#ifndef KIT_SMP_H
#define KIT_SMP_H

#include "events.h"

#define SMP_MAX 8 /* as many as there are stacks for */
#define STACK_BYTES 16384

/* How many vCPUs the domain has, running or not, at most SMP_MAX. */
unsigned smp_count(void);

/* Let a vCPU that never ran call fn(its number) on a stack of its own, with the kit's traps and
 * callbacks, events masked. It goes down when fn returns, and again whenever it is brought up. What
 * Xen answered. */
long smp_start(unsigned vcpu, void (*fn)(unsigned vcpu));

/* Stop and go, from any vCPU. */
long smp_up(unsigned vcpu);
long smp_down(unsigned vcpu);
bool smp_is_up(unsigned vcpu);

/* A moment of doing nothing, and the rest of the turn given away. */
void smp_relax(void);

/* Wait until *place is `value`, giving the CPU away meanwhile; false after ten seconds. Events are
 * taken as far as they are not masked. */
bool smp_wait(const volatile unsigned *place, unsigned value);

/* ---- locks ---- */

struct spinlock {
    volatile u32 taken;
};
void spin_lock(struct spinlock *lock);
void spin_unlock(struct spinlock *lock);

/* Whoever comes first is served first. */
struct ticket_lock {
    volatile u32 next, serving;
};
void ticket_lock(struct ticket_lock *lock);
void ticket_unlock(struct ticket_lock *lock);

#endif
