/*
 * The clocks that Xen shares with a guest: nanoseconds since boot, read without a hypercall.
 */
#ifndef KIT_TIME_H
#define KIT_TIME_H

#include "types.h"

#define NSEC_PER_SEC 1000000000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_USEC 1000ull

u64 read_tsc(void);
/* A number of its ticks in nanoseconds, at the rate that holds now. */
u64 tsc_to_duration(u64 ticks);
u64 system_time(void);
/* Seconds since 1970 when the system time was 0. */
u64 boot_time(void);
/* The same in nanoseconds. */
u64 boot_time_ns(void);

/* Virtual time: nanoseconds for which this vCPU has been on a physical CPU. The first call of
 * virtual_time_init asks Xen to keep the account in our memory, and returns its error. */
long virtual_time_init(void);
u64 virtual_time(void);
/* Nanoseconds in one of the other states, RUNSTATE_*, up to when this vCPU last came to run. */
u64 time_in_state(int state);

/* 64 by 32 bits; 32-bit processors have no instruction for it, and there is no libgcc here. */
u64 divide(u64 value, u32 by, u32 *rest);

#endif
