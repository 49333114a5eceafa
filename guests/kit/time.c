/*
 * Time from shared_info (public/xen.h, struct vcpu_time_info): Xen leaves a moment as TSC value and
 * as nanoseconds, and the rate; the guest extrapolates with its own rdtsc. The version is odd while
 * Xen is writing and changes when it has written.
 */
#include "time.h"

#include "events.h"
#include "hypercall.h"

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

u64 tsc_to_duration(u64 ticks)
{
    const volatile struct vcpu_time_info *time = &vcpu_info()->time;

    if (time->tsc_shift >= 0)
        ticks <<= time->tsc_shift;
    else
        ticks >>= -time->tsc_shift;
    return scale(ticks, time->tsc_to_system_mul);
}

u64 system_time(void)
{
    const volatile struct vcpu_time_info *time = &vcpu_info()->time;
    u32 version;
    u64 ns;

    do {
        version = time->version;
        barrier();
        ns = time->system_time + tsc_to_duration(read_tsc() - time->tsc_timestamp);
        barrier();
    } while ((version & 1) || version != time->version);
    return ns;
}

static u64 read_boot_time(u32 *nsec)
{
    const volatile struct shared_info *info = shared_info;
    u32 version, sec, sec_hi;

    do {
        version = info->wc_version;
        barrier();
        sec = info->wc_sec;
        *nsec = info->wc_nsec;
#if IS_64
        sec_hi = info->wc_sec_hi;
#else
        sec_hi = info->arch.wc_sec_hi;
#endif
        barrier();
    } while ((version & 1) || version != info->wc_version);
    return (u64)sec_hi << 32 | sec;
}

u64 boot_time(void)
{
    return read_boot_time(&(u32){ 0 });
}

u64 boot_time_ns(void)
{
    u32 nsec;
    u64 sec = read_boot_time(&nsec);

    return sec * NSEC_PER_SEC + nsec;
}

static volatile struct vcpu_runstate_info runstate;

long virtual_time_init(void)
{
    struct vcpu_register_runstate_memory_area area = { .addr.p = 0 };

    area.addr.v = (struct vcpu_runstate_info *)&runstate;
    return hv_vcpu_op(VCPUOP_register_runstate_memory_area, 0, &area);
}

/* Xen writes the account whenever it has put this vCPU on a CPU. So it is ours while the time of
 * the last such moment stands still, and what has passed since then was spent running. */
u64 virtual_time(void)
{
    u64 since, ran;

    do {
        since = runstate.state_entry_time;
        barrier();
        ran = runstate.time[RUNSTATE_running] + system_time() - since;
        barrier();
    } while (since != runstate.state_entry_time);
    return ran;
}

u64 time_in_state(int state)
{
    return runstate.time[state];
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
