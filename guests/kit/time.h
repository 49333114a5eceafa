/* The clock that Xen shares with a guest: nanoseconds since boot, read without a hypercall. */
#ifndef KIT_TIME_H
#define KIT_TIME_H

#include "types.h"

#define NSEC_PER_SEC 1000000000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_USEC 1000ull

u64 read_tsc(void);
u64 system_time(void);
/* Seconds since 1970 when the system time was 0. */
u64 boot_time(void);

/* 64 by 32 bits; 32-bit processors have no instruction for it, and there is no libgcc here. */
u64 divide(u64 value, u32 by, u32 *rest);

#endif
