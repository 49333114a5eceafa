/*
 * clocks: the three times that a guest can tell, read against each other.
 *
 *   real     nanoseconds since the machine started. Goes on whatever happens to this domain
 *            (vcpu_time_info: a moment, and the TSC to count on from it).
 *   virtual  nanoseconds for which this vCPU has been on a physical CPU. Stands still while others
 *            run (the run-state area).
 *   wall     the date. Real time and an offset, which whoever runs the machine may change
 *            (wc_sec, wc_nsec in shared_info).
 *
 * Put it beside a busy domain and the first two part. Command line: round_ms=N, the length of each
 * of its experiments (default 20), or watch=1: read all clocks for ever, and fail if one of them
 * ever goes back.
 */
#include "console.h"
#include "events.h"
#include "hypercall.h"
#include "report.h"
#include "start.h"
#include "time.h"

const char guest_name[] = "clocks";

static unsigned ms(u64 ns)
{
    return (unsigned)divide(ns, (u32)NSEC_PER_MSEC, &(u32){ 0 });
}

static unsigned us_behind(u64 ns)
{
    return (unsigned)divide(ns - ms(ns) * NSEC_PER_MSEC, 1000, &(u32){ 0 });
}

/* "12.345", a number of milliseconds with three places, wherever it is needed in a line. */
#define MS_FORMAT "%u.%03u"
#define MS_ARGS(ns) ms(ns), us_behind(ns)

/* Some work between two looks at the clock: where rdtsc traps, looking all the time is slow. */
static void spin(void)
{
    for (unsigned i = 0; i < 5000; i++)
        barrier();
}

/* ---- the date ---- */

static bool is_leap(unsigned year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static unsigned days_in(unsigned year, unsigned month)
{
    static const u8 days[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

    return days[month] + (month == 1 && is_leap(year));
}

static void print_date(u64 unix_ns)
{
    u32 ns, second;
    u64 seconds = divide(unix_ns, (u32)NSEC_PER_SEC, &ns);
    unsigned days = (unsigned)divide(seconds, 86400, &second);
    unsigned year = 1970, month = 0;

    while (days >= 365u + is_leap(year))
        days -= 365u + is_leap(year++);
    while (days >= days_in(year, month))
        days -= days_in(year, month++);
    print("wall      %u-%02u-%02u %02u:%02u:%02u.%06u\n", year, month + 1, days + 1, second / 3600,
          second / 60 % 60, second % 60, ns / 1000);
}

/* ---- one moment, three times ---- */

static void say_now(void)
{
    u64 real = system_time(), virtual = virtual_time();

    print("real      " MS_FORMAT " ms since the machine started\n", MS_ARGS(real));
    print("virtual   " MS_FORMAT " ms of them on a CPU\n", MS_ARGS(virtual));
    print_date(boot_time_ns() + real);
}

static void test_real(void)
{
    const volatile struct vcpu_time_info *time = &vcpu_info()->time;
    u64 previous = system_time();
    bool forward = true;

    for (unsigned i = 0; i < 500; i++) {
        u64 now = system_time();

        forward &= now >= previous;
        previous = now;
    }
    check_true("real.forward", "500 readings, none before the last", forward);
    check_true("real.version", "the version is even: nobody is writing", !(time->version & 1));
    check_true("real.past", "Xen tells a moment that has passed", time->system_time <= previous);
}

/* The TSC and the nanoseconds are one clock: what lies between two readings of one lies between
 * two readings of the other. */
static void test_tsc(void)
{
    u64 before = system_time();
    u64 tsc = read_tsc();
    u64 middle = system_time();
    u64 later_tsc = read_tsc();
    u64 after = system_time();

    check_true("tsc.order", "readings of TSC and clock in turn keep their order",
               tsc <= later_tsc && before <= middle && middle <= after);
    check_true("tsc.rate", "and a step of the TSC is worth no more than the time around it",
               tsc_to_duration(later_tsc - tsc) <= after - before);
}

static void test_wall(void)
{
    u64 base = boot_time_ns();
    u32 version = shared_info->wc_version;

    spin();
    check_true("wall.base", "the wall clock is real time plus what stands still in shared_info",
               boot_time_ns() == base || shared_info->wc_version != version);
    check_true("wall.version", "its version is even", !(version & 1));
}

/* ---- experiments ---- */

static volatile unsigned alarms;

static void on_timer(evtchn_port_t port, struct regs *regs)
{
    (void)port;
    (void)regs;
    alarms++;
}

/* Busy for a stretch of real time: how much of it was ours? */
static void experiment_busy(u64 length)
{
    u64 real = system_time(), virtual = virtual_time();
    u64 end = real + length;

    while (system_time() < end)
        spin();
    virtual = virtual_time() - virtual;
    real = system_time() - real;
    print("busy      for " MS_FORMAT " ms of real time: on a CPU " MS_FORMAT " ms\n", MS_ARGS(real),
          MS_ARGS(virtual));
    check_true("virtual.less", "virtual time never passes faster than real time", virtual <= real);
}

/* Asleep for as long: the real clock wakes us, and the virtual one has hardly moved. */
static void experiment_asleep(u64 length)
{
    u64 real = system_time(), virtual = virtual_time(), blocked = time_in_state(RUNSTATE_blocked);
    unsigned before = alarms;

    events_disable();
    hv_set_timer_op(real + length);
    while (alarms == before) {
        hv_sched_block();
        events_disable();
    }
    virtual = virtual_time() - virtual;
    blocked = time_in_state(RUNSTATE_blocked) - blocked;
    real = system_time() - real;
    print("asleep    for " MS_FORMAT " ms of real time: on a CPU " MS_FORMAT " ms\n", MS_ARGS(real),
          MS_ARGS(virtual));
    check_true("timer.real", "set_timer_op counts real time: it wakes us not before", real >= length);
    check_true("virtual.asleep", "who sleeps uses no virtual time", virtual < real);
    check_true("runstate.blocked", "the account has it as blocked", blocked && blocked <= real);
    check_true("runstate.sum", "and all its times together are no more than real time",
               virtual + blocked <= real);
}

/* An alarm of our own after so much virtual time, beside one of Xen's after so much real time. */
static void experiment_alarms(u64 length)
{
    u64 start = system_time(), end = virtual_time() + length, real_alarm = 0, virtual_alarm = 0;
    unsigned before = alarms;

    hv_set_timer_op(start + length);
    events_enable();
    while (!real_alarm || !virtual_alarm) {
        if (!real_alarm && alarms != before)
            real_alarm = system_time() - start;
        if (!virtual_alarm && virtual_time() >= end)
            virtual_alarm = system_time() - start;
        spin();
    }
    events_disable();
    print("alarms    after " MS_FORMAT " ms real: at " MS_FORMAT " ms", MS_ARGS(length),
          MS_ARGS(real_alarm));
    print("; after as much virtual: at " MS_FORMAT " ms\n", MS_ARGS(virtual_alarm));
    check_true("alarm.virtual", "an alarm in virtual time comes no sooner than one in real time",
               virtual_alarm >= length);
}

/* Every clock for ever. What goes back ends the domain. */
static NORETURN void watch(void)
{
    u64 real = 0, virtual = 0, tsc = 0;

    for (;;) {
        u64 now_real = system_time(), now_tsc = read_tsc(), now_virtual = virtual_time();

        if (now_real < real)
            panic("real time went from %llu to %llu", (unsigned long long)real,
                  (unsigned long long)now_real);
        if (now_tsc < tsc)
            panic("the TSC went from %llu to %llu", (unsigned long long)tsc,
                  (unsigned long long)now_tsc);
        if (now_virtual < virtual)
            panic("virtual time went from %llu to %llu", (unsigned long long)virtual,
                  (unsigned long long)now_virtual);
        real = now_real;
        tsc = now_tsc;
        virtual = now_virtual;
    }
}

void guest_main(const struct start_info *si)
{
    u64 length = option_number(si, "round_ms", 20) * NSEC_PER_MSEC;
    evtchn_port_t port;

    check_equal("virtual.area", "VCPUOP_register_runstate_memory_area is accepted", 0,
                (u64)virtual_time_init());
    if (option_is(si, "watch", "1"))
        watch();
    hv_vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL);
    port = event_bind_virq(VIRQ_TIMER, on_timer);
    print("clocks: one moment, three times (" WIDTH_NAME ")\n");
    say_now();
    test_real();
    test_tsc();
    test_wall();
    experiment_busy(length);
    experiment_asleep(length);
    experiment_alarms(length);
    print("and now\n");
    say_now();
    event_close(port);
    report_and_exit();
}
