/*
 * crash: a kernel that ends badly, on purpose, for the report that the hypervisor writes about it.
 *
 * Command line: how=no-handler (a page fault without a trap table), how=stack (a trap whose frame
 * cannot be written), how=shutdown (it says itself that it crashed). The fault is three calls deep,
 * so that there is something to trace back. It has no verdict: the report is looked at from
 * outside.
 */
#include "console.h"
#include "hypercall.h"
#include "report.h"
#include "start.h"

const char guest_name[] = "crash";

#define NOTHING_HERE 0x00decade /* an address that nothing is mapped at */
#define NOINLINE __attribute__((noinline))

static const struct start_info *start;

/* volatile and barriers keep the compiler from turning these calls into jumps. */
static NOINLINE void write_to_nothing(volatile u32 *where)
{
    *where = 0xc0ffee;
    barrier();
}

/* The stack pointer leads nowhere, so the frame of the next trap does too. */
static NOINLINE void trap_without_stack(void)
{
#if IS_64
    __asm__ volatile("mov %0, %%rsp\n ud2" ::"r"((word)NOTHING_HERE));
#else
    __asm__ volatile("mov %0, %%esp\n ud2" ::"r"((word)NOTHING_HERE));
#endif
    barrier();
}

static NOINLINE void second_floor(void)
{
    if (option_is(start, "how", "stack"))
        trap_without_stack();
    hv_set_trap_table(NULL);
    write_to_nothing((volatile u32 *)NOTHING_HERE);
    barrier();
}

static NOINLINE void first_floor(void)
{
    second_floor();
    barrier();
}

void guest_main(const struct start_info *si)
{
    start = si;
    print("crash: %s\n", WIDTH_NAME);
    hv_xen_version(XENVER_version, NULL);
    if (option_is(si, "how", "shutdown"))
        panic("as it was told");
    first_floor();
}
