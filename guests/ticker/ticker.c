/*
 * ticker: time as a PV guest has it.
 *
 * The clock is read from shared_info, without a hypercall; timers are deadlines in its nanoseconds,
 * and fire VIRQ_TIMER. Command line: ticks=N (default 10) and period_ms=P (default 10). What must
 * hold on any machine is checked; how late the ticks come is printed, since that depends on it.
 */
#include "console.h"
#include "events.h"
#include "hypercall.h"
#include "report.h"
#include "start.h"
#include "time.h"

const char guest_name[] = "ticker";

static volatile unsigned ticks;
static volatile u64 ticked_at;
static evtchn_port_t timer_port;

static void on_timer(evtchn_port_t port, struct regs *regs)
{
    (void)port;
    (void)regs;
    ticks++;
    ticked_at = system_time();
}

/* Block until the tick counter has changed. The mask is set while we look, and block clears it
 * together with going to sleep, so no tick can slip in between. */
static void wait_for_tick(unsigned before)
{
    events_disable();
    while (ticks == before) {
        hv_sched_block();
        events_disable();
    }
}

static void test_clock(void)
{
    u64 previous = system_time(), now = previous;
    bool forward = true;

    for (unsigned i = 0; i < 1000; i++) {
        now = system_time();
        forward &= now >= previous;
        previous = now;
    }
    check_true("clock.monotonic", "1000 readings never go back (public/xen.h vcpu_time_info)",
               forward);
    check_true("clock.even", "the version is even outside an update",
               !(vcpu_info()->time.version & 1));
    check_true("clock.wall", "so is the wall clock's, and its base stands still",
               !(shared_info->wc_version & 1) && boot_time() == boot_time());
}

/* Ticks at fixed deadlines: the next one counts from the last deadline, not from when it came. */
static void test_ticks(unsigned count, u64 period)
{
    u64 start = system_time(), deadline = start, latest = 0;
    bool early = false;

    ticks = 0;
    for (unsigned i = 0; i < count; i++) {
        u64 late;

        deadline += period;
        hv_set_timer_op(deadline);
        wait_for_tick(i);
        early |= ticked_at < deadline;
        late = ticked_at - deadline;
        latest = late > latest ? late : latest;
        print("tick %u at %llu us\n", i + 1, (unsigned long long)divide(ticked_at - start, 1000,
                                                                         &(u32){ 0 }));
    }
    check_equal("timer.ticks", "one VIRQ_TIMER for each set_timer_op", count, ticks);
    check_true("timer.early", "and none before its deadline", !early);
    print("latest tick: %llu us late\n", (unsigned long long)divide(latest, 1000, &(u32){ 0 }));
}

/* Some work between two looks at the clock: where rdtsc traps, looking all the time is slow. */
static void spin(void)
{
    for (unsigned i = 0; i < 20000; i++)
        barrier();
}

/* True if a timer came within the time. Waits busily, which is what the periodic timer needs. */
static bool ticks_within(u64 ns)
{
    unsigned before = ticks;
    u64 end = system_time() + ns;

    events_enable();
    while (ticks == before && system_time() < end)
        spin();
    events_disable();
    return ticks != before;
}

static void test_one_shot(void)
{
    hv_set_timer_op(system_time() + 2 * NSEC_PER_MSEC);
    hv_set_timer_op(0);
    check_true("timer.cancel", "set_timer_op(0) cancels", !ticks_within(5 * NSEC_PER_MSEC));
    hv_set_timer_op(system_time() - NSEC_PER_MSEC);
    check_true("timer.past", "a deadline that has passed fires at once",
               ticks_within(50 * NSEC_PER_MSEC));
    hv_set_timer_op(system_time() + 50 * NSEC_PER_MSEC);
    hv_set_timer_op(system_time() + 2 * NSEC_PER_MSEC);
    check_true("timer.replace", "a second set_timer_op replaces the first",
               ticks_within(40 * NSEC_PER_MSEC));
    check_true("timer.once", "each fires once", !ticks_within(60 * NSEC_PER_MSEC));
    hv_set_timer_op(system_time() + 2 * NSEC_PER_MSEC);
    hv_vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL);
    check_true("timer.shared", "the vCPU's single-shot timer is the same one",
               !ticks_within(10 * NSEC_PER_MSEC));
}

/* A deadline 13 days ahead, or negative, is what a Linux whose jiffies wrapped asks for: Xen lets it
 * have its event after 100 ms. */
static void test_wrapped(const char *id, u64 deadline)
{
    u64 start = system_time();

    hv_set_timer_op(deadline);
    wait_for_tick(ticks);
    check_true(id, "a deadline that makes no sense fires after 100 ms",
               ticked_at - start >= 100 * NSEC_PER_MSEC &&
                   ticked_at - start < 300 * NSEC_PER_MSEC);
}

/* vcpu_op's own timers (public/vcpu.h); a Xen that has none says -ENOSYS. */
static bool present(long err)
{
    return err != -XEN_ENOSYS;
}

static void test_single_shot(void)
{
    struct vcpu_set_singleshot_timer timer = { .timeout_abs_ns = system_time() + NSEC_PER_MSEC };
    long err = hv_vcpu_op(VCPUOP_set_singleshot_timer, 0, &timer);

    if (!present(err)) {
        check_skip("single.set", "VCPUOP_set_singleshot_timer", "not here");
        return;
    }
    check_equal("single.set", "VCPUOP_set_singleshot_timer is accepted", 0, (u64)err);
    check_true("single.fires", "and fires VIRQ_TIMER", ticks_within(50 * NSEC_PER_MSEC));
    timer.timeout_abs_ns = system_time() + 2 * NSEC_PER_MSEC;
    hv_vcpu_op(VCPUOP_set_singleshot_timer, 0, &timer);
    hv_vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL);
    check_true("single.stop", "unless stopped", !ticks_within(5 * NSEC_PER_MSEC));
    timer.timeout_abs_ns = 1;
    hv_vcpu_op(VCPUOP_set_singleshot_timer, 0, &timer);
    check_true("single.past", "a time that has passed fires at once",
               ticks_within(50 * NSEC_PER_MSEC));
}

/* A vCPU that blocks longer than a period has no tick until something else wakes it, and then one
 * for all it has missed. */
static void test_periodic_blocked(void)
{
    struct vcpu_set_periodic_timer timer = { .period_ns = 5 * NSEC_PER_MSEC };
    u64 until;

    ticks_within(5 * NSEC_PER_MSEC);
    if (!present(hv_vcpu_op(VCPUOP_set_periodic_timer, 0, &timer)))
        return;
    check_true("periodic.at-once", "set when its last tick was long ago, it ticks at once",
               ticks_within(NSEC_PER_MSEC));
    until = system_time() + 22 * NSEC_PER_MSEC;
    hv_set_timer_op(until);
    wait_for_tick(ticks);
    check_true("periodic.blocked", "it does not wake a vCPU that blocks", ticked_at >= until);
    hv_vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL);
    ticks_within(5 * NSEC_PER_MSEC);
}

/* The periodic timer runs while its vCPU does: one that blocks is not woken by it (Xen stops it
 * when it switches to another vCPU, common/sched/core.c), so this waits busily. */
static void test_periodic(void)
{
    struct vcpu_set_periodic_timer timer = { .period_ns = 2 * NSEC_PER_MSEC };
    bool fires = true;
    long err = hv_vcpu_op(VCPUOP_set_periodic_timer, 0, &timer);

    if (!present(err)) {
        check_skip("periodic.set", "VCPUOP_set_periodic_timer", "not here");
        return;
    }
    check_equal("periodic.set", "VCPUOP_set_periodic_timer is accepted", 0, (u64)err);
    for (unsigned i = 0; i < 5; i++)
        fires &= ticks_within(50 * NSEC_PER_MSEC);
    check_true("periodic.fires", "and fires again and again", fires);
    hv_vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL);
    ticks_within(5 * NSEC_PER_MSEC);
    check_true("periodic.stop", "until stopped", !ticks_within(10 * NSEC_PER_MSEC));
    timer.period_ns = 1000;
    check_equal("periodic.short", "periods below a millisecond are refused", (u64)-XEN_EINVAL,
                (u64)hv_vcpu_op(VCPUOP_set_periodic_timer, 0, &timer));
}

static void test_poll(void)
{
    evtchn_port_t port = event_bind_ipi(on_timer);
    struct sched_poll poll = { .ports = &port, .nr_ports = 1 };
    u64 until = system_time() + 5 * NSEC_PER_MSEC;

    events_disable();
    poll.timeout = until;
    check_equal("poll.timeout", "SCHEDOP_poll returns 0 at its timeout", 0,
                (u64)hv_sched_poll(&poll));
    check_true("poll.waited", "not before", system_time() >= until);
    check_true("poll.mask", "and leaves the upcall mask alone", vcpu_info()->evtchn_upcall_mask);
    hv_evtchn_send(port);
    poll.timeout = system_time() + 10 * NSEC_PER_SEC;
    hv_sched_poll(&poll);
    check_true("poll.pending", "with a port pending it returns at once",
               system_time() < poll.timeout - NSEC_PER_SEC);
    event_clear_pending(port);
    event_close(port);
}

static void test_block(void)
{
    evtchn_port_t port = event_bind_ipi(on_timer);
    unsigned before = ticks;

    events_disable();
    hv_evtchn_send(port);
    hv_sched_block();
    check_equal("block.unmasks", "SCHEDOP_block clears the upcall mask", 0,
                vcpu_info()->evtchn_upcall_mask);
    check_equal("block.pending", "and returns at once when an event is pending", 1,
                ticks - before);
    events_disable();
    event_close(port);
}

void guest_main(const struct start_info *si)
{
    print("ticker: %s\n", WIDTH_NAME);
    /* Xen starts every domain with a periodic timer, from times when all kernels wanted one. */
    hv_vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL);
    test_clock();
    timer_port = event_bind_virq(VIRQ_TIMER, on_timer);
    test_ticks((unsigned)option_number(si, "ticks", 10),
               option_number(si, "period_ms", 10) * NSEC_PER_MSEC);
    test_one_shot();
    test_wrapped("timer.far", (u64)1 << 62);
    test_wrapped("timer.negative", (u64)1 << 63);
    test_single_shot();
    test_periodic();
    test_periodic_blocked();
    test_poll();
    test_block();
    event_close(timer_port);
    report_and_exit();
}
