/*
 * smp: several virtual CPUs of one domain.
 *
 * Each rule is checked from vCPU 0, which prints; the others do what they are told by `task`, one
 * task after the other, and count in `done`. Nothing here depends on how many there are, as long as
 * there are two; with one all is skipped. Command line: rounds=N (default 500).
 */
#include "smp.h"

#include "console.h"
#include "hypercall.h"
#include "report.h"
#include "start.h"
#include "time.h"

const char guest_name[] = "smp";

static unsigned nr_vcpus;
static u32 rounds;

/* ---- tasks: what all vCPUs do at the same time ---- */

static void (*volatile task)(unsigned vcpu);
static volatile unsigned task_nr; /* counts up: there is a new one */
static volatile unsigned done;    /* vCPUs that have finished it */

/* vCPU 0 takes part; true when all have finished in time. */
static bool everybody(void (*fn)(unsigned vcpu))
{
    done = 0;
    task = fn;
    __atomic_fetch_add(&task_nr, 1, __ATOMIC_SEQ_CST);
    fn(0);
    __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
    return smp_wait(&done, nr_vcpus);
}

static volatile unsigned started;
static volatile unsigned identity_wrong;

static void worker(unsigned vcpu)
{
    unsigned seen = 0;

    if (vcpu_id() != vcpu || &vcpu_info()->time != &shared_info->vcpu_info[vcpu].time)
        identity_wrong = 1;
    __atomic_fetch_add(&started, 1, __ATOMIC_SEQ_CST);
    events_enable();
    for (;;) {
        while (task_nr == seen)
            smp_relax();
        seen++;
        task(vcpu);
        __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
    }
}

/* ---- coming up ---- */

static void test_start(void)
{
    long err = 0;
    unsigned up = 0;

    check_equal("up.first", "a vCPU that was not initialised does not come up (VCPUOP_up)",
                (u64)-XEN_EINVAL, (u64)smp_up(1));
    check_equal("init.boot", "the boot vCPU is initialised already (VCPUOP_initialise)",
                (u64)-XEN_EEXIST, (u64)smp_start(0, worker));
    check_true("is_up.before", "VCPUOP_is_up is 0 before", !smp_is_up(1));
    for (unsigned vcpu = 1; vcpu < nr_vcpus; vcpu++)
        err |= smp_start(vcpu, worker);
    check_equal("init.start", "VCPUOP_initialise, then VCPUOP_up", 0, (u64)err);
    check_true("up.all", "each runs, on its own stack, with its own vcpu_info",
               smp_wait(&started, nr_vcpus - 1) && !identity_wrong);
    for (unsigned vcpu = 1; vcpu < nr_vcpus; vcpu++)
        up += smp_is_up(vcpu);
    check_equal("is_up.after", "VCPUOP_is_up is 1 for each", nr_vcpus - 1, up);
    check_equal("init.twice", "a vCPU is initialised once", (u64)-XEN_EEXIST,
                (u64)smp_start(1, worker));
    check_equal("init.absent", "one that does not exist: ENOENT, before its argument is read",
                (u64)-XEN_ENOENT, (u64)hv_vcpu_op(VCPUOP_initialise, 8000, (void *)0x1000));
    check_equal("init.fault", "a context that cannot be read: EFAULT", (u64)-XEN_EFAULT,
                (u64)hv_vcpu_op(VCPUOP_initialise, 1, (void *)0x1000));
}

/* ---- locks ---- */

static struct spinlock spinlock;
static struct ticket_lock ticketlock;
static volatile u32 counters[2]; /* changed by separate load and store */

/* Long enough between load and store that a slice may end there. */
static void increment(volatile u32 *counter)
{
    u32 value = *counter;

    for (unsigned i = 0; i < 50; i++)
        barrier();
    *counter = value + 1;
}

static void count_with_locks(unsigned vcpu)
{
    (void)vcpu;
    for (u32 i = 0; i < rounds; i++) {
        spin_lock(&spinlock);
        increment(&counters[0]);
        spin_unlock(&spinlock);
        ticket_lock(&ticketlock);
        increment(&counters[1]);
        ticket_unlock(&ticketlock);
    }
}

static volatile u32 atomic_counter;

static void count_atomically(unsigned vcpu)
{
    (void)vcpu;
    for (u32 i = 0; i < 10 * rounds; i++)
        __atomic_fetch_add(&atomic_counter, 1, __ATOMIC_SEQ_CST);
}

static void test_locks(void)
{
    check_true("lock.finish", "all vCPUs come to the end of their work",
               everybody(count_with_locks) && everybody(count_atomically));
    check_equal("lock.spin", "an xchg spinlock keeps them apart: no increment is lost",
                nr_vcpus * rounds, counters[0]);
    check_equal("lock.ticket", "so does a ticket lock (xadd)", nr_vcpus * rounds, counters[1]);
    check_equal("lock.xadd", "lock xadd without a lock is exact", 10ull * nr_vcpus * rounds,
                atomic_counter);
}

/* ---- IPIs ---- */

#define IPI_ROUNDS 10
static evtchn_port_t ipi_port[SMP_MAX][SMP_MAX]; /* [to][from] */
static volatile unsigned received[SMP_MAX][SMP_MAX];
static volatile unsigned elsewhere; /* handlers that ran on the wrong vCPU */
static volatile unsigned unanswered;

static void on_ipi(evtchn_port_t port, struct regs *regs)
{
    unsigned to = vcpu_id();

    (void)regs;
    for (unsigned from = 0; from < nr_vcpus; from++) {
        if (ipi_port[to][from] == port) {
            received[to][from]++;
            return;
        }
    }
    elsewhere++;
}

/* Interrupt each of the others, and wait for its answer each time. */
static void interrupt_all(unsigned me)
{
    for (unsigned round = 1; round <= IPI_ROUNDS; round++) {
        for (unsigned to = 0; to < nr_vcpus; to++) {
            if (to == me)
                continue;
            hv_evtchn_send(ipi_port[to][me]);
            if (!smp_wait(&received[to][me], round))
                unanswered++;
        }
    }
}

static void test_ipis(void)
{
    unsigned total = 0;

    for (unsigned to = 0; to < nr_vcpus; to++)
        for (unsigned from = 0; from < nr_vcpus; from++)
            ipi_port[to][from] = event_bind_ipi_on(to, on_ipi);
    events_enable();
    check_true("ipi.finish", "all vCPUs interrupt all others", everybody(interrupt_all));
    events_disable();
    for (unsigned to = 0; to < nr_vcpus; to++)
        for (unsigned from = 0; from < nr_vcpus; from++)
            total += received[to][from];
    check_equal("ipi.count", "each IPI arrives once", nr_vcpus * (nr_vcpus - 1) * IPI_ROUNDS,
                total);
    check_equal("ipi.where", "on the vCPU that it is bound to (EVTCHNOP_bind_ipi)", 0, elsewhere);
    check_equal("ipi.answer", "and in time", 0, unanswered);
    for (unsigned to = 0; to < nr_vcpus; to++)
        for (unsigned from = 0; from < nr_vcpus; from++)
            event_close(ipi_port[to][from]);
}

/* ---- timers ---- */

static evtchn_port_t timer_port[SMP_MAX];
static volatile unsigned ticked[SMP_MAX];
static volatile unsigned early;
static volatile u64 due[SMP_MAX];

static void on_timer(evtchn_port_t port, struct regs *regs)
{
    unsigned vcpu = vcpu_id();

    (void)regs;
    if (timer_port[vcpu] != port || system_time() < due[vcpu])
        early++;
    ticked[vcpu]++;
}

/* Run, without asking for anything, until it ticks; then let it not tick any more. */
static void wait_for_tick(unsigned vcpu)
{
    u64 end = system_time() + NSEC_PER_SEC;

    events_enable();
    while (!ticked[vcpu] && system_time() < end)
        smp_relax();
    hv_vcpu_op(VCPUOP_stop_periodic_timer, vcpu, NULL);
}

static void test_ticks(void)
{
    unsigned total = 0;

    for (unsigned vcpu = 0; vcpu < nr_vcpus; vcpu++)
        timer_port[vcpu] = event_bind_virq_on(vcpu, VIRQ_TIMER, on_timer);
    everybody(wait_for_tick);
    events_disable();
    for (unsigned vcpu = 0; vcpu < nr_vcpus; vcpu++) {
        total += ticked[vcpu] > 0;
        ticked[vcpu] = 0;
    }
    check_equal("tick.start", "each vCPU starts with a tick of its own (pv_vcpu_initialise)",
                nr_vcpus, total);
}

static void wait_for_timer(unsigned vcpu)
{
    struct vcpu_set_singleshot_timer timer;

    due[vcpu] = system_time() + (1 + vcpu) * NSEC_PER_MSEC;
    timer = (struct vcpu_set_singleshot_timer){ .timeout_abs_ns = due[vcpu] };
    hv_vcpu_op(VCPUOP_set_singleshot_timer, vcpu, &timer);
    events_disable();
    while (!ticked[vcpu]) {
        hv_sched_block();
        events_disable();
    }
    if (vcpu)
        events_enable();
}

static void test_timers(void)
{
    struct vcpu_set_singleshot_timer timer = { .timeout_abs_ns = 1 };
    unsigned total = 0;

    check_true("timer.finish", "each vCPU blocks until its own timer", everybody(wait_for_timer));
    for (unsigned vcpu = 0; vcpu < nr_vcpus; vcpu++)
        total += ticked[vcpu];
    check_equal("timer.count", "VIRQ_TIMER is each vCPU's own, and comes once", nr_vcpus, total);
    check_equal("timer.early", "on its own port, and not before its time", 0, early);
    check_equal("timer.other", "a vCPU sets no single-shot timer but its own", (u64)-XEN_EINVAL,
                (u64)hv_vcpu_op(VCPUOP_set_singleshot_timer, 1, &timer));
}

/* ---- poll ---- */

static evtchn_port_t poll_port;
static volatile unsigned polled;

static void poll_or_send(unsigned vcpu)
{
    struct sched_poll poll = { .ports = &poll_port, .nr_ports = 1,
                               .timeout = system_time() + 5 * NSEC_PER_SEC };

    if (vcpu == 1) {
        hv_sched_poll(&poll);
        polled = system_time() < poll.timeout && event_is_pending(poll_port);
    } else if (vcpu == 0) {
        hv_evtchn_send(poll_port);
    }
}

static void test_poll(void)
{
    struct evtchn_bind_ipi bind = { .vcpu = 1 };

    hv_event_channel_op(EVTCHNOP_bind_ipi, &bind);
    poll_port = bind.port; /* stays masked: an event that nobody is interrupted for */
    check_true("poll.masked", "SCHEDOP_poll ends at the event of a masked port",
               everybody(poll_or_send) && polled);
    event_close(poll_port);
}

/* ---- run-states, down and up ---- */

static bool adds_up(const struct vcpu_runstate_info *info, u64 now)
{
    u64 sum = info->time[0] + info->time[1] + info->time[2] + info->time[3];

    return sum <= now && info->state_entry_time <= now;
}

static void test_runstates(void)
{
    struct vcpu_runstate_info mine = { 0 }, its = { 0 };

    hv_vcpu_op(VCPUOP_get_runstate_info, 0, &mine);
    hv_vcpu_op(VCPUOP_get_runstate_info, 1, &its);
    check_equal("run.self", "who asks is running (VCPUOP_get_runstate_info)", RUNSTATE_running,
                (u64)mine.state);
    check_true("run.sum", "times in all states are no more than there was",
               adds_up(&mine, system_time()) && adds_up(&its, system_time()));
    check_true("run.ran", "another vCPU's time is told too", its.time[RUNSTATE_running] > 0);
}

static volatile unsigned naps;

static void nap(unsigned vcpu)
{
    if (vcpu != 1)
        return;
    for (unsigned i = 0; i < 2; i++) {
        naps++;
        smp_down(1);
    }
    naps++;
}

static bool wait_for_down(unsigned vcpu)
{
    u64 end = system_time() + 10 * NSEC_PER_SEC;

    while (smp_is_up(vcpu)) {
        if (system_time() > end)
            return false;
        smp_relax();
    }
    return true;
}

/* A vCPU that is down may still be on its way off another physical CPU: it is asked until it is. */
static u64 state_off_the_cpu(unsigned vcpu)
{
    struct vcpu_runstate_info info = { 0 };
    u64 end = system_time() + NSEC_PER_SEC;

    do {
        hv_vcpu_op(VCPUOP_get_runstate_info, vcpu, &info);
    } while (info.state == RUNSTATE_running && system_time() < end);
    return info.state;
}

static void test_down(void)
{
    bool went_down;

    task = nap;
    done = 0;
    __atomic_fetch_add(&task_nr, 1, __ATOMIC_SEQ_CST);
    went_down = smp_wait(&naps, 1) && wait_for_down(1);
    check_true("down.self", "VCPUOP_down takes the caller off", went_down);
    check_equal("down.state", "its run-state is offline", RUNSTATE_offline, state_off_the_cpu(1));
    smp_up(1);
    check_true("down.again", "brought up, it goes on where it was",
               smp_wait(&naps, 2) && wait_for_down(1));
    smp_up(1);
    check_true("down.end", "and again", smp_wait(&naps, 3) && smp_wait(&done, nr_vcpus - 1));
    check_equal("down.up", "VCPUOP_up of one that is up changes nothing", 0, (u64)smp_up(1));
}

/* ---- NMIs ---- */

static volatile unsigned nmis, nmi_masked;

static bool on_nmi(struct regs *regs)
{
    (void)regs;
    nmis++;
    nmi_masked = vcpu_info()->evtchn_upcall_mask;
    return true;
}

static void register_nmi(void)
{
    void *entry = trap_entries + 2 * TRAP_ENTRY_SIZE;
    struct callback_register reg = {
        .type = CALLBACKTYPE_nmi,
#if IS_64
        .address = (word)entry,
#else
        .address = { .cs = FLAT_KERNEL_CS, .eip = (word)entry },
#endif
    };

    trap_set_handler(2, on_nmi);
    if (hv_callback_register(&reg))
        panic("the callback for NMIs is refused");
}

static void test_nmi(void)
{
    check_equal("nmi.argument", "VCPUOP_send_nmi takes no argument", (u64)-XEN_EINVAL,
                (u64)hv_vcpu_op(VCPUOP_send_nmi, 0, (void *)0x1000));
    register_nmi();
    events_disable();
    hv_vcpu_op(VCPUOP_send_nmi, 0, NULL);
    check_equal("nmi.self", "an NMI enters its handler, events masked or not", 1, nmis);
    check_equal("nmi.mask", "which runs with events masked", 1, nmi_masked);
    hv_vcpu_op(VCPUOP_send_nmi, 0, NULL);
    check_equal("nmi.again", "after the handler's iret the next one can come", 2, nmis);
}

void guest_main(const struct start_info *si)
{
    rounds = (u32)option_number(si, "rounds", 500);
    nr_vcpus = smp_count();
    print("smp: %s, %u vCPUs\n", WIDTH_NAME, nr_vcpus);
    check_true("boot.up", "the boot vCPU is up", smp_is_up(0));
    if (nr_vcpus > 1) {
        test_start();
        test_locks();
        test_ipis();
        test_ticks();
        test_timers();
        test_poll();
        test_runstates();
        test_down();
    } else {
        check_skip("smp", "several vCPUs", "there is one");
    }
    test_nmi();
    report_and_exit();
}
