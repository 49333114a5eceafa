/*
 * The virtual IDT and what happens behind it.
 *
 * A trap goes to the handler set for its vector; if that passes, to the trap_catch that is waiting,
 * if any; else the guest has failed and says so with all its registers.
 */
#include "traps.h"

#include "console.h"
#include "events.h"
#include "hypercall.h"
#include "report.h"

/* One entry per vector, in order, plus the zero that ends the table. */
static struct trap_info idt[257];
static trap_handler handlers[NR_VECTORS];
static struct trap_seen *catching;

static void fill_idt(void)
{
    for (unsigned vector = 0; vector < 32; vector++) {
        idt[vector] = (struct trap_info){
            .vector = (u8)vector,
            /* int3 and into are for everyone, as in any IDT. */
            .flags = vector == EXC_BP || vector == EXC_OF ? TI_DPL(3) : TI_DPL(0),
            .cs = FLAT_KERNEL_CS,
            .address = (word)trap_entries + vector * TRAP_ENTRY_SIZE,
        };
    }
}

static void register_callback(u16 type, void *entry)
{
    struct callback_register reg = {
        .type = type,
#if IS_64
        .address = (word)entry,
#else
        .address = { .cs = FLAT_KERNEL_CS, .eip = (word)entry },
#endif
    };
    long err = hv_callback_register(&reg);

    if (err)
        panic("callback_op: register type %d: error %ld", type, err);
}

/* The x86_32 build uses the hypercall of its time, the others the one that replaced it in 2006. */
static void init_callbacks(void)
{
#if defined(WIDTH_X86_32)
    long err = hv_set_callbacks(FLAT_KERNEL_CS, (word)event_entry, FLAT_KERNEL_CS,
                                (word)failsafe_entry);
    if (err)
        panic("set_callbacks: error %ld", err);
#else
    register_callback(CALLBACKTYPE_event, event_entry);
    register_callback(CALLBACKTYPE_failsafe, failsafe_entry);
#endif
#if IS_64
    register_callback(CALLBACKTYPE_syscall, syscall_entry);
#endif
}

void traps_init(void)
{
    long err;

    fill_idt();
    err = hv_set_trap_table(idt);
    if (err)
        panic("set_trap_table: error %ld", err);
    init_callbacks();
}

void traps_register_sysenter(void)
{
    register_callback(CALLBACKTYPE_sysenter, sysenter_entry);
}

trap_handler trap_set_handler(unsigned vector, trap_handler handler)
{
    trap_handler old = handlers[vector];

    handlers[vector] = handler;
    return old;
}

/* A table of one entry changes that one and leaves the others (do_set_trap_table only goes through
 * what it is given). An entry whose cs is 0 is a gate that is not present. */
static void load_gate(struct trap_info gate)
{
    struct trap_info table[2] = { gate, { .address = 0 } };
    long err = hv_set_trap_table(table);

    if (err)
        panic("set_trap_table: vector %d: error %ld", gate.vector, err);
}

void trap_set_gate(u8 vector, u8 flags)
{
    load_gate((struct trap_info){
        .vector = vector,
        .flags = flags,
        .cs = FLAT_KERNEL_CS,
        .address = (word)trap_entries + vector * TRAP_ENTRY_SIZE,
    });
}

void traps_reload(void)
{
    long err = hv_set_trap_table(NULL);

    if (!err)
        err = hv_set_trap_table(idt);
    if (err)
        panic("set_trap_table: error %ld", err);
}

static const char *vector_name(word vector)
{
    static const char *const names[] = {
        [EXC_DE] = "#DE", [EXC_DB] = "#DB", [2] = "NMI",      [EXC_BP] = "#BP", [EXC_OF] = "#OF",
        [EXC_BR] = "#BR", [EXC_UD] = "#UD", [EXC_NM] = "#NM", [EXC_DF] = "#DF", [EXC_TS] = "#TS",
        [EXC_NP] = "#NP", [EXC_SS] = "#SS", [EXC_GP] = "#GP", [EXC_PF] = "#PF", [EXC_MF] = "#MF",
        [EXC_AC] = "#AC", [EXC_MC] = "#MC", [EXC_XM] = "#XM",
    };

    switch (vector) {
    case VECTOR_EVENT:
        return "event";
    case VECTOR_FAILSAFE:
        return "failsafe";
    case VECTOR_SYSCALL:
        return "syscall";
    case VECTOR_SYSENTER:
        return "sysenter";
    }
    return vector < ARRAY_SIZE(names) && names[vector] ? names[vector] : "int";
}

void trap_describe(char *text, size_t size, word vector, word error)
{
    if (vector >= 32 && vector < 256)
        format(text, size, "int 0x%lx", vector);
    else if (vector < 32 && (VECTORS_WITH_ERROR_CODE >> vector & 1))
        format(text, size, "%s(%lx)", vector_name(vector), error);
    else
        format(text, size, "%s", vector_name(vector));
}

/* Everything there is to say about a trap that nobody expected. */
static NORETURN void unexpected(struct regs *regs)
{
    char what[32];

    trap_describe(what, sizeof(what), regs->vector, regs->error);
    print("unexpected %s in %s mode\n", what, regs_from_user(regs) ? "user" : "kernel");
    print("ip %lx cs %x flags %lx sp %lx mask %d cr2 %lx\n", regs->ip, regs->cs, regs->flags,
          regs_sp(regs), regs->saved_mask, vcpu_info()->arch.cr2);
    print("ax %lx bx %lx cx %lx dx %lx si %lx di %lx bp %lx\n", regs->ax, regs->bx, regs->cx,
          regs->dx, regs->si, regs->di, regs->bp);
    panic("unexpected %s at %lx", what, regs->ip);
}

static void record(const struct regs *regs, u8 mask)
{
    catching->trapped = true;
    catching->regs = *regs;
    catching->regs_at = (word)regs;
    catching->sp = regs_sp(regs);
    catching->cr2 = vcpu_info()->arch.cr2;
    catching->mask = mask;
}

/* Make the return from this trap end in trap_unwind, in kernel mode, with the mask left alone. */
static void redirect_to_unwind(struct regs *regs, u8 mask)
{
    regs->ip = (word)trap_unwind;
    regs->cs = FRAME_KERNEL_CS;
    regs->flags = mask ? 0x2 : 0x2 | FLAG_IF;
#if IS_64
    regs->sp = trap_unwind_sp;
    regs->ss = FLAT_KERNEL_SS;
#else
    /* Whatever the program had loaded may be what the trap was about. */
    regs->ds = regs->es = FLAT_KERNEL_DS;
    regs->fs = regs->gs = 0;
#endif
}

void trap_dispatch(struct regs *regs)
{
    u8 mask = vcpu_info()->evtchn_upcall_mask;

    if (regs->vector == VECTOR_EVENT) {
        events_upcall(regs);
        return;
    }
    if (handlers[regs->vector] && handlers[regs->vector](regs))
        return;
    if (!catching)
        unexpected(regs);
    record(regs, mask);
    catching = NULL;
    redirect_to_unwind(regs, regs->saved_mask);
}

void trap_catch(void (*fn)(void *), void *arg, struct trap_seen *seen)
{
    struct trap_seen *outer = catching;

    seen->trapped = false;
    catching = seen;
    trap_run(fn, arg);
    catching = outer;
}
