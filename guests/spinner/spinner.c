/*
 * spinner: keeps a CPU busy, or waits to be woken, and measures how soon it is served.
 *
 * A busy one counts rounds of work for as long as it lives. With every_us=P it also has a timer at
 * fixed deadlines, and notes how late each one reaches its handler: what somebody who asks this
 * domain something has to wait for an answer. With idle=1 it does nothing but wait for that timer.
 *
 * Command line: every_us=P (default 0: no timer), wakes=N (10: then it reports and powers off),
 * idle=1, echo_us=N (0: work to do at each wake-up), ms=N (0: how long it lives without a timer).
 */
#include "console.h"
#include "events.h"
#include "hypercall.h"
#include "report.h"
#include "start.h"
#include "time.h"

const char guest_name[] = "spinner";

struct plan {
    u64 every, echo; /* ns */
    unsigned wakes;
    bool idle;
};

/* What the handler sees and writes. */
static volatile u64 deadline, late_total, late_worst;
static volatile unsigned woken;
static volatile u64 rounds;
static struct plan plan;

static unsigned us(u64 ns)
{
    return (unsigned)divide(ns, 1000, &(u32){ 0 });
}

/* Some work between two looks at the clock. */
static void work_a_little(void)
{
    for (unsigned i = 0; i < 2000; i++)
        barrier();
    rounds++;
}

static void on_timer(evtchn_port_t port, struct regs *regs)
{
    u64 late = system_time() - deadline;

    (void)port;
    (void)regs;
    late_total += late;
    late_worst = late > late_worst ? late : late_worst;
    woken++;
    deadline += plan.every;
    while (deadline <= system_time())
        deadline += plan.every; /* those that were slept through are not asked twice */
    if (woken < plan.wakes)
        hv_set_timer_op(deadline);
}

static void wait_or_work(void)
{
    unsigned before = woken;

    if (!plan.idle) {
        events_enable();
        work_a_little();
        return;
    }
    events_disable();
    while (woken == before) {
        hv_sched_block();
        events_disable();
    }
    for (u64 end = system_time() + plan.echo; plan.echo && system_time() < end;)
        work_a_little();
}

static void be_asked(void)
{
    evtchn_port_t port = event_bind_virq(VIRQ_TIMER, on_timer);

    deadline = system_time() + plan.every;
    hv_set_timer_op(deadline);
    while (woken < plan.wakes)
        wait_or_work();
    print("woken %u times, %u us late on average, %u us at worst\n", woken,
          us(divide(late_total, woken, &(u32){ 0 })), us(late_worst));
    event_close(port);
}

void guest_main(const struct start_info *si)
{
    u64 end = option_number(si, "ms", 0) * NSEC_PER_MSEC;

    plan.every = option_number(si, "every_us", 0) * NSEC_PER_USEC;
    plan.wakes = (unsigned)option_number(si, "wakes", 10);
    plan.idle = option_is(si, "idle", "1");
    plan.echo = option_number(si, "echo_us", 0) * NSEC_PER_USEC;
    if (plan.idle && !plan.every)
        panic("an idle one that nobody wakes: every_us=P says when");
    hv_vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL);
    print("spinner: %s (" WIDTH_NAME ")\n", plan.idle ? "idle" : "busy");
    if (plan.every && plan.wakes)
        be_asked();
    else
        for (end += system_time(); !option_number(si, "ms", 0) || system_time() < end;)
            work_a_little();
    print("%llu rounds\n", (unsigned long long)rounds);
    report_and_exit();
}
