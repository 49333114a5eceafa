/*
 * Events: the shared page, the upcall, and who handles which port.
 *
 * Two levels: vcpu_info.evtchn_pending_sel says which words of evtchn_pending to look at, those say
 * which ports. Xen sets, the guest clears; both sides race, so bits are taken with locked
 * instructions, and evtchn_upcall_pending is cleared before looking, never after.
 */
#include "events.h"

#include "console.h"
#include "hypercall.h"
#include "mm.h"
#include "report.h"

/* Room in the address space for the shared page; until that is mapped, a stand-in, masked. */
static union {
    struct shared_info info;
    char page[PAGE_SIZE];
} shared_page __attribute__((aligned(PAGE_SIZE))) = {
    .info.vcpu_info[0].evtchn_upcall_mask = 1,
};

struct shared_info *shared_info = &shared_page.info;

#define NR_PORTS (WORD_BITS * WORD_BITS)
#define NR_HANDLED 64 /* ports are given out from the lowest; guests here use a handful */
static event_handler handlers[NR_HANDLED];
/* Whom a port notifies. A word of the bitmap has ports of several vCPUs, which are not ours. */
static u8 handled_by[NR_HANDLED];
bool smp_on;

static inline bool test_and_clear(word *bits, unsigned nr)
{
    word old = __atomic_fetch_and(&bits[nr / WORD_BITS], ~((word)1 << nr % WORD_BITS),
                                  __ATOMIC_SEQ_CST);

    return old >> nr % WORD_BITS & 1;
}

static inline void set_bit(word *bits, unsigned nr)
{
    __atomic_fetch_or(&bits[nr / WORD_BITS], (word)1 << nr % WORD_BITS, __ATOMIC_SEQ_CST);
}

void events_init(word shared_info_maddr)
{
    map_foreign_page(&shared_page, shared_info_maddr >> PAGE_SHIFT);
    for (unsigned i = 0; i < WORD_BITS; i++)
        shared_info->evtchn_mask[i] = ~(word)0;
}

void event_set_handler(evtchn_port_t port, event_handler handler)
{
    long err;

    if (port >= NR_HANDLED)
        panic("port %u is beyond the %d that the kit handles", port, NR_HANDLED);
    handlers[port] = handler;
    err = hv_evtchn_unmask(port);
    if (err)
        panic("unmask of port %u: error %ld", port, err);
}

evtchn_port_t event_bind_virq(u32 virq, event_handler handler)
{
    return event_bind_virq_on(0, virq, handler);
}

evtchn_port_t event_bind_virq_on(unsigned vcpu, u32 virq, event_handler handler)
{
    struct evtchn_bind_virq bind = { .virq = virq, .vcpu = vcpu };
    long err = hv_event_channel_op(EVTCHNOP_bind_virq, &bind);

    if (err)
        panic("bind_virq %u: error %ld", virq, err);
    handled_by[bind.port % NR_HANDLED] = (u8)vcpu;
    event_set_handler(bind.port, handler);
    return bind.port;
}

evtchn_port_t event_bind_ipi(event_handler handler)
{
    return event_bind_ipi_on(0, handler);
}

evtchn_port_t event_bind_ipi_on(unsigned vcpu, event_handler handler)
{
    struct evtchn_bind_ipi bind = { .vcpu = vcpu };
    long err = hv_event_channel_op(EVTCHNOP_bind_ipi, &bind);

    if (err)
        panic("bind_ipi: error %ld", err);
    handled_by[bind.port % NR_HANDLED] = (u8)vcpu;
    event_set_handler(bind.port, handler);
    return bind.port;
}

void event_close(evtchn_port_t port)
{
    event_mask(port);
    handlers[port] = NULL;
    handled_by[port] = 0;
    hv_evtchn_close(port);
    event_clear_pending(port);
}

void events_enable(void)
{
    vcpu_info()->evtchn_upcall_mask = 0;
    barrier();
    /* Xen only looks when it returns to the guest, so any hypercall delivers what is due. */
    if (vcpu_info()->evtchn_upcall_pending)
        hv_xen_version(XENVER_version, NULL);
}

bool event_is_pending(evtchn_port_t port)
{
    return shared_info->evtchn_pending[port / WORD_BITS] >> port % WORD_BITS & 1;
}

void event_clear_pending(evtchn_port_t port)
{
    test_and_clear(shared_info->evtchn_pending, port);
}

void event_mask(evtchn_port_t port)
{
    set_bit(shared_info->evtchn_mask, port);
}

static void handle_port(evtchn_port_t port, struct regs *regs)
{
    if (port < NR_HANDLED && handled_by[port] != vcpu_id())
        return;
    if (!test_and_clear(shared_info->evtchn_pending, port))
        return;
    if (port < NR_HANDLED && handlers[port])
        handlers[port](port, regs);
}

void events_upcall(struct regs *regs)
{
    struct vcpu_info *vcpu = vcpu_info();

    while (__atomic_exchange_n(&vcpu->evtchn_upcall_pending, 0, __ATOMIC_SEQ_CST)) {
        word sel = __atomic_exchange_n(&vcpu->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);

        for (; sel; sel &= sel - 1) {
            unsigned i = (unsigned)__builtin_ctzl(sel);
            word due = shared_info->evtchn_pending[i] & ~shared_info->evtchn_mask[i];

            for (; due; due &= due - 1)
                handle_port(i * WORD_BITS + (unsigned)__builtin_ctzl(due), regs);
        }
    }
}
