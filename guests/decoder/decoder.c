/*
 * decoder: a programme with deadlines, like one that shows a film.
 *
 * Each frame of the film is due a period after the one before, and takes some milliseconds of CPU
 * time to decode. Between frames it sleeps. Alone it never misses; beside busy domains it depends on
 * how soon the scheduler lets it run when its timer has fired, which is what warping is for. A frame
 * that could only be started when it ought to be ready is dropped.
 *
 * Command line: hz=N (default 30), work_ms=N (8), frames=N (30), and allow=N, the number of missed
 * deadlines with which it still passes (default: it only counts).
 */
#include "console.h"
#include "events.h"
#include "hypercall.h"
#include "report.h"
#include "start.h"
#include "time.h"

const char guest_name[] = "decoder";

struct film {
    u64 period, work; /* ns; work is of virtual time */
    unsigned frames;
};

struct score {
    unsigned missed, shown;
    u64 worst, total; /* ns from a frame's release to its being ready */
    u64 slowest_start; /* ns from a frame's release to its first instruction */
};

static volatile unsigned alarms;

static void on_timer(evtchn_port_t port, struct regs *regs)
{
    (void)port;
    (void)regs;
    alarms++;
}

static void sleep_until(u64 when)
{
    events_disable();
    hv_set_timer_op(when);
    while (system_time() < when) {
        hv_sched_block();
        events_disable();
    }
}

/* Work for `ns` of virtual time: while others run it does not count. */
static void work(u64 ns)
{
    u64 end = virtual_time() + ns;

    while (virtual_time() < end)
        for (unsigned i = 0; i < 5000; i++)
            barrier();
}

static u64 max(u64 a, u64 b)
{
    return a > b ? a : b;
}

static unsigned us(u64 ns)
{
    return (unsigned)divide(ns, 1000, &(u32){ 0 });
}

static void show(const struct film *film, struct score *score)
{
    u64 release = system_time() + film->period;

    for (unsigned frame = 0; frame < film->frames; frame++, release += film->period) {
        u64 started, response;

        sleep_until(release);
        started = system_time();
        score->slowest_start = max(score->slowest_start, started - release);
        if (started - release >= film->period) {
            score->missed++;
            print("frame %u is dropped: %u us behind\n", frame + 1, us(started - release));
            continue;
        }
        score->shown++;
        work(film->work);
        response = system_time() - release;
        score->worst = max(score->worst, response);
        score->total += response;
        if (response > film->period) {
            score->missed++;
            print("frame %u is late: ready %u us after its release, %u us too late\n", frame + 1,
                  us(response), us(response - film->period));
        }
    }
}

void guest_main(const struct start_info *si)
{
    u32 hz = (u32)option_number(si, "hz", 30);
    struct film film = {
        .period = hz ? divide(NSEC_PER_SEC, hz, &(u32){ 0 }) : 0,
        .work = option_number(si, "work_ms", 8) * NSEC_PER_MSEC,
        .frames = (unsigned)option_number(si, "frames", 30),
    };
    struct score score = { 0 };
    evtchn_port_t port;
    long err = virtual_time_init();

    if (err)
        panic("no run-state area: error %ld", err);
    if (!film.period || !film.frames || film.work >= film.period)
        panic("no film has %u frames at %u Hz that take %u us each", film.frames, hz, us(film.work));
    hv_vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL);
    port = event_bind_virq(VIRQ_TIMER, on_timer);
    print("decoder: %u frames at %u Hz, %u us of work each (" WIDTH_NAME ")\n", film.frames, hz,
          us(film.work));
    show(&film, &score);
    print("%u of %u deadlines missed\n", score.missed, film.frames);
    print("ready after %u us on average, %u us at worst; started %u us late at worst\n",
          us(divide(score.total, score.shown ? score.shown : 1, &(u32){ 0 })), us(score.worst),
          us(score.slowest_start));
    if (option(si, "allow"))
        check_true("decoder.deadlines", "no more are missed than allow= says",
                   score.missed <= option_number(si, "allow", 0));
    event_close(port);
    report_and_exit();
}
