/*
 * Time from shared_info (public/xen.h, struct vcpu_time_info): Xen leaves a moment as TSC value and
 * as nanoseconds, and the rate; the guest extrapolates with its own rdtsc. The version is odd while
 * Xen is writing and changes when it has written.
 */
#include "time.h"

#include "events.h"

u64 read_tsc(void)
{
    u32 low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (u64)high << 32 | low;
}

/* The upper 64 bits of the 96-bit product, for any value. */
static u64 scale(u64 value, u32 mul)
{
    u64 low = (value & 0xffffffff) * mul;
    u64 high = (value >> 32) * mul;

    return high + (low >> 32);
}

static u64 tsc_to_ns(const volatile struct vcpu_time_info *time)
{
    u64 delta = read_tsc() - time->tsc_timestamp;

    if (time->tsc_shift >= 0)
        delta <<= time->tsc_shift;
    else
        delta >>= -time->tsc_shift;
    return scale(delta, time->tsc_to_system_mul);
}

u64 system_time(void)
{
    const volatile struct vcpu_time_info *time = &vcpu_info()->time;
    u32 version;
    u64 ns;

    do {
        version = time->version;
        barrier();
        ns = time->system_time + tsc_to_ns(time);
        barrier();
    } while ((version & 1) || version != time->version);
    return ns;
}

u64 boot_time(void)
{
    const volatile struct shared_info *info = shared_info;
    u32 version, sec, sec_hi;

    do {
        version = info->wc_version;
        barrier();
        sec = info->wc_sec;
#if IS_64
        sec_hi = info->wc_sec_hi;
#else
        sec_hi = info->arch.wc_sec_hi;
#endif
        barrier();
    } while ((version & 1) || version != info->wc_version);
    return (u64)sec_hi << 32 | sec;
}

u64 divide(u64 value, u32 by, u32 *rest)
{
#if IS_64
    *rest = (u32)(value % by);
    return value / by;
#else
    /* Schoolbook: divl takes 64 bits by 32 as long as the quotient fits, so do it in two digits. */
    u32 high = (u32)(value >> 32), low = (u32)value;
    u32 quotient_high = high / by;
    u32 quotient_low;

    high %= by;
    __asm__("divl %[by]" : "=a"(quotient_low), "=d"(*rest) : "a"(low), "d"(high), [by] "r"(by));
    return (u64)quotient_high << 32 | quotient_low;
#endif
}
