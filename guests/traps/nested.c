/*
 * Faults inside handlers: a trap pushes its frame below whatever the kernel was doing, another
 * trap's handler included, and each return takes off its own (SDM 3A 6.12.1).
 */
#include "case.h"
#include "events.h"
#include "hypercall.h"
#include "mm.h"

static char absent[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static unsigned depth, deepest;
static word levels_seen[8];

PROVOKE(nested_ud, "", "ud2");
PROVOKE(nested_int, "mov $5, %ecx", "int3");

/* Skip the ud2, but take a page fault on the way and map the page in its handler. */
static bool on_ud(struct regs *regs)
{
    *(volatile char *)absent = 1;
    regs->ip += 2;
    return true;
}

static bool on_pf(struct regs *regs)
{
    (void)regs;
    return !protect_page(absent, PTE_P | PTE_RW);
}

static void test_fault_in_handler(void)
{
    struct trap_seen seen;
    trap_handler old_ud = trap_set_handler(EXC_UD, on_ud);
    trap_handler old_pf = trap_set_handler(EXC_PF, on_pf);

    set_l1e((word)absent, 0);
    provoke(nested_ud, &seen);
    trap_set_handler(EXC_UD, old_ud);
    trap_set_handler(EXC_PF, old_pf);
    check_true("nest.pf-in-ud", "a #PF in the #UD handler, both handled, and on behind ud2",
               !seen.trapped && absent[0] == 1);
}

/* A handler that raises its own vector again, five deep; every frame must come back intact. */
static bool on_int(struct regs *regs)
{
    word before = regs->cx;

    if (depth > deepest)
        deepest = depth;
    levels_seen[depth] = regs->cx;
    if (++depth < 5)
        __asm__ volatile("int3" ::"c"(before - 1) : "memory");
    depth--;
    return regs->cx == before;
}

static void test_recursion(void)
{
    struct trap_seen seen;
    bool descending = true;

    trap_set_handler(EXC_BP, on_int);
    provoke(nested_int, &seen);
    trap_set_handler(EXC_BP, NULL);
    for (unsigned i = 0; i < 5; i++)
        descending &= levels_seen[i] == 5 - i;
    check_true("nest.five-deep", "a handler that interrupts itself, five deep",
               !seen.trapped && deepest == 4 && descending);
}

/* An event that becomes due in a handler which runs with events enabled. */
static unsigned events_seen;

static void on_event(evtchn_port_t port, struct regs *regs)
{
    (void)port;
    (void)regs;
    events_seen++;
}

static evtchn_port_t nested_port;

static bool send_event(struct regs *regs)
{
    hv_evtchn_send(nested_port);
    regs->ip += 2;
    return events_seen == 1;
}

static void test_event_in_handler(void)
{
    struct trap_seen seen;

    nested_port = event_bind_ipi(on_event);
    trap_set_handler(EXC_UD, send_event);
    events_enable();
    provoke(nested_ud, &seen);
    events_disable();
    trap_set_handler(EXC_UD, NULL);
    event_close(nested_port);
    check_true("nest.event-in-ud", "an event during a handler that leaves events enabled",
               !seen.trapped && events_seen == 1);
}

void test_nested(void)
{
    test_fault_in_handler();
    test_recursion();
    test_event_in_handler();
}
