/*
 * bench: loops whose cost somebody outside measures.
 *
 * Command line: loop=hypercall|alu|load|store|fault|syscall|bounced|direct|port|map|batch|entry|touch|all
 * (default all), n=COUNT (default a million), and nx=0 to leave data pages executable, as Xen maps
 * them (writes are slow there on an emulated processor). Each loop prints its name, its count and the guest's own nanoseconds between
 * two marks, so that the host can attribute its time: "bench: begin NAME" and "bench: end NAME".
 * There is nothing to check, so it reports 0 checks.
 */
#include "bench.h"

#include "console.h"
#include "hypercall.h"
#include "mm.h"
#include "report.h"
#include "start.h"
#include "string.h"
#include "time.h"
#include "user.h"

const char guest_name[] = "bench";

#define BUFFER_PAGES 16
static word buffer[BUFFER_PAGES * PAGE_SIZE / sizeof(word)] __attribute__((aligned(PAGE_SIZE)));
#define BUFFER_MASK (ARRAY_SIZE(buffer) - 1)

/* The least that a hypercall can do: no argument is read, the version is in a register. */
static void hypercall_loop(u64 count)
{
    for (u64 i = 0; i < count; i++)
        hv_xen_version(XENVER_version, NULL);
}

/* Eight dependent additions and a branch: no memory at all. */
static void alu_loop(u64 count)
{
    word value = 0;

    for (word i = 0; i < (word)count; i++)
        __asm__ volatile("inc %0\n inc %0\n inc %0\n inc %0\n"
                         "inc %0\n inc %0\n inc %0\n inc %0\n" : "+r"(value));
}

static void load_loop(u64 count)
{
    for (word i = 0; i < (word)count; i++) {
        const volatile word *at = &buffer[(i * 4) & BUFFER_MASK];

        (void)at[0];
        (void)at[1];
        (void)at[2];
        (void)at[3];
    }
}

static void store_loop(u64 count)
{
    for (word i = 0; i < (word)count; i++) {
        volatile word *at = &buffer[(i * 4) & BUFFER_MASK];

        at[0] = i;
        at[1] = i;
        at[2] = i;
        at[3] = i;
    }
}

/* A trap delivered to the guest's own handler, and the iret back. */
static bool skip_ud2(struct regs *regs)
{
    regs->ip += 2;
    return true;
}

static void fault_loop(u64 count)
{
    trap_handler old = trap_set_handler(EXC_UD, skip_ud2);

    for (u64 i = 0; i < count; i++)
        __asm__ volatile("ud2");
    trap_set_handler(EXC_UD, old);
}

/* A system call out of ring 3 and back, count times: user mode counts down, then executes ud2. */
#if IS_64
#define SYSTEM_CALL "syscall"
#define COUNTER "%rbx"
#define SYSTEM_CALL_VECTOR VECTOR_SYSCALL
#else
#define SYSTEM_CALL "int $0x80"
#define COUNTER "%ebx"
#define SYSTEM_CALL_VECTOR 0x80
#endif
__asm__(".pushsection .text.user, \"ax\"\n"
        "user_loop:\n 1: " SYSTEM_CALL "\n dec " COUNTER "\n jnz 1b\n ud2\n"
        "user_loop_end:\n.popsection");
extern const char user_loop[], user_loop_end[];

static bool return_at_once(struct regs *regs)
{
    (void)regs;
    return true;
}

static void syscall_loop(u64 count)
{
    struct trap_seen seen;
    struct regs regs;

    trap_set_gate(0x80, TI_DPL(3));
    trap_set_handler(SYSTEM_CALL_VECTOR, return_at_once);
    user_load(user_loop, user_loop_end, &regs);
    regs.bx = (word)count;
    user_continue(&regs, &seen);
    if (seen.regs.vector != EXC_UD || seen.regs.bx)
        panic("the user loop ended by vector %lu with %lu to go", seen.regs.vector, seen.regs.bx);
    trap_set_handler(SYSTEM_CALL_VECTOR, NULL);
}

static const struct loop {
    const char *name;
    void (*run)(u64 count);
} loops[] = {
    { "hypercall", hypercall_loop }, { "alu", alu_loop },     { "load", load_loop },
    { "store", store_loop },         { "fault", fault_loop }, { "syscall", syscall_loop },
    { "bounced", bounced_loop },
#if !IS_64
    { "direct", direct_loop },
#endif
    { "port", port_loop },          { "map", map_loop },             { "batch", batch_loop }, { "entry", entry_loop },
    { "touch", touch_loop },
};

static void measure(const struct loop *loop, u64 count)
{
    u64 start, ns;

    print("bench: begin %s\n", loop->name);
    start = system_time();
    loop->run(count);
    ns = system_time() - start;
    print("bench: end %s\n", loop->name);
    print("bench: %s %llu iterations in %llu ns of guest time\n", loop->name,
          (unsigned long long)count, (unsigned long long)ns);
}

/* Make the buffer not executable, as a careful kernel would. */
static void protect_buffer(void)
{
    for (unsigned i = 0; i < BUFFER_PAGES; i++)
        protect_page((char *)buffer + i * PAGE_SIZE, PTE_P | PTE_RW | PTE_A | PTE_D | PTE_NX);
}

void guest_main(const struct start_info *si)
{
    u64 count = option_number(si, "n", 1000000);
    bool all = !option(si, "loop") || option_is(si, "loop", "all");
    unsigned measured = 0;

    user_init();
    if (option_number(si, "nx", 1))
        protect_buffer();
    for (size_t i = 0; i < ARRAY_SIZE(loops); i++) {
        if (all || option_is(si, "loop", loops[i].name)) {
            measure(&loops[i], count);
            measured++;
        }
    }
    if (!measured)
        panic("there is no such loop as the command line \"%s\" asks for", si->cmd_line);
    report_and_exit();
}
