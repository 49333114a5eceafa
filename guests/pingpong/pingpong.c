/*
 * pingpong: events to and fro between two domains.
 *
 * One side opens a port (role=open, for peer=DOMID) and says its number on the console; the other
 * is told that number (role=bind, peer=DOMID, port=N) and binds to it. From then on whoever hears
 * its port ring rings back, n times (default 1000), which the binding side counts and times.
 * wait=upcall lets the event callback do the answering, wait=poll SCHEDOP_poll with events masked.
 */
#include "console.h"
#include "events.h"
#include "hypercall.h"
#include "report.h"
#include "start.h"
#include "string.h"
#include "time.h"

const char guest_name[] = "pingpong";

static evtchn_port_t port;
static bool by_poll, is_opener;
static volatile u32 heard;
static u32 rounds;

/* ---- waiting, in two ways ---- */

static void on_ring(evtchn_port_t from, struct regs *regs)
{
    (void)regs;
    heard++;
    if (is_opener)
        hv_evtchn_send(from);
}

static void wait_by_upcall(u32 count)
{
    events_disable();
    while (heard != count) {
        hv_sched_block(); /* unmasks; what rang before is heard now */
        events_disable();
    }
}

/* The port stays masked, so that nobody is interrupted: its pending bit is all there is. */
static void wait_by_poll(u32 count)
{
    struct sched_poll poll = { .ports = &port, .nr_ports = 1 };

    while (heard != count) {
        if (!event_is_pending(port)) {
            hv_sched_poll(&poll);
            continue;
        }
        event_clear_pending(port);
        on_ring(port, NULL);
    }
}

static void wait_for(u32 count)
{
    if (by_poll)
        wait_by_poll(count);
    else
        wait_by_upcall(count);
}

static void listen(void)
{
    if (!by_poll)
        event_set_handler(port, on_ring);
}

/* ---- the two roles ---- */

static void open_port(domid_t peer)
{
    struct evtchn_alloc_unbound alloc = { .dom = DOMID_SELF, .remote_dom = peer };

    if (hv_event_channel_op(EVTCHNOP_alloc_unbound, &alloc))
        panic("no port for d%u", peer);
    port = alloc.port;
    listen();
    print("port %u is open to d%u\n", port, peer);
    wait_for(rounds);
    check_equal("pong.rounds", "each ring is heard, and answered", rounds, heard);
}

static void bind_port(domid_t peer, evtchn_port_t remote)
{
    struct evtchn_bind_interdomain bind = { .remote_dom = peer, .remote_port = remote };
    u64 start;

    if (hv_event_channel_op(EVTCHNOP_bind_interdomain, &bind))
        panic("port %u of d%u cannot be bound", remote, peer);
    port = bind.local_port;
    event_clear_pending(port); /* binding itself rings, for what may have been missed */
    listen();
    start = system_time();
    for (u32 round = 1; round <= rounds; round++) {
        hv_evtchn_send(port);
        wait_for(round);
    }
    check_equal("ping.rounds", "each ring is answered", rounds, heard);
    print("%u round trips in %llu ns of virtual time\n", rounds,
          (unsigned long long)(system_time() - start));
}

void guest_main(const struct start_info *si)
{
    domid_t peer = (domid_t)option_number(si, "peer", 0);

    rounds = (u32)option_number(si, "n", 1000);
    by_poll = option_is(si, "wait", "poll");
    is_opener = option_is(si, "role", "open");
    hv_vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL);
    events_disable();
    if (is_opener)
        open_port(peer);
    else if (option_is(si, "role", "bind"))
        bind_port(peer, (evtchn_port_t)option_number(si, "port", 0));
    else
        panic("role=open or role=bind, with peer=DOMID");
    report_and_exit();
}
