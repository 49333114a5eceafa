/*
 * Traps: what a handler is shown, and how to provoke a trap and look at it.
 */
#ifndef KIT_TRAPS_H
#define KIT_TRAPS_H

#include "types.h"
#include "xen/segments.h"
#include "xen/traps.h"

/* Vectors of our own for what Xen delivers without one. */
#define VECTOR_EVENT 256
#define VECTOR_FAILSAFE 257
#define VECTOR_SYSCALL 258
#define VECTOR_SYSENTER 259
#define NR_VECTORS 260

/* Exceptions that come with an error code: #DF #TS #NP #SS #GP #PF #AC #CP (SDM 3A, table 6-1). */
#define VECTORS_WITH_ERROR_CODE 0x227d00

#define FLAG_CF (1u << 0)
#define FLAG_TF (1u << 8)
#define FLAG_IF (1u << 9)
#define FLAG_DF (1u << 10)
#define FLAG_OF (1u << 11)
#define FLAG_IOPL (3u << 12)
#define FLAG_NT (1u << 14)
#define FLAG_RF (1u << 16)
#define FLAG_AC (1u << 18)

/*
 * Everything an interrupted program had in its registers, in the order in which entry_32.S and
 * entry_64.S push it (which take the offsets from here). The part from error on is what Xen
 * pushed; an error of 0 stands in where it pushed none.
 */
struct regs {
#if IS_64
    word r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
#else
    word bx, cx, dx, si, di, bp, ax;
    word ds, es, fs, gs;
#endif
    word vector;
    word error;
    word ip;
    u16 cs;
#if IS_64
    u16 cs_pad;
    u8 saved_mask; /* evtchn_upcall_mask as it was */
    u8 mask_pad[3];
#else
    u8 saved_mask;
    u8 mask_pad;
#endif
    word flags;
    word sp, ss; /* on 32 bits only pushed when the trap came from ring 2 or 3 */
};

/* How a frame says "kernel mode". A 64-bit kernel shares its selectors with user mode, so Xen
 * clears the RPL of a CS that it shows, and takes RPL 3 in an iret frame for user mode. */
#define FRAME_KERNEL_CS (IS_64 ? FLAT_KERNEL_CS & ~3 : FLAT_KERNEL_CS)

/* Did the trap interrupt user mode? */
static inline bool regs_from_user(const struct regs *regs)
{
    return (regs->cs & 3) == 3;
}

/* The stack pointer of what was interrupted. */
static inline word regs_sp(const struct regs *regs)
{
    return IS_64 || regs_from_user(regs) ? regs->sp : (word)&regs->sp;
}

/* Install the virtual IDT and the callbacks. Before this any trap ends the domain. */
void traps_init(void);

/* A handler returns true when the program may go on with *regs, false to pass the trap on. */
typedef bool (*trap_handler)(struct regs *regs);

/* Returns the handler that was there. NULL for none. */
trap_handler trap_set_handler(unsigned vector, trap_handler handler);

/* Replace one entry of the virtual IDT: who may come by `int n`, and whether it masks events. */
void trap_set_gate(u8 vector, u8 flags);
/* Back to the table that traps_init installed, and nothing else. */
void traps_reload(void);
/* 32-bit and 64-bit alike; there is no callback for it from the start. */
void traps_register_sysenter(void);

/* "#GP(0)", "#UD", "int 0x80". */
void trap_describe(char *text, size_t size, word vector, word error);

/* DS ES FS GS as they were to be reloaded, of the latest failsafe callback. */
extern word failsafe_selectors[4];

/* What trap_catch saw. */
struct trap_seen {
    bool trapped;
    struct regs regs;
    word regs_at; /* where on the stack the frame was */
    word sp;      /* of the interrupted program */
    word cr2;     /* of a #PF */
    u8 mask;      /* evtchn_upcall_mask on entry to the handler */
};

/*
 * Call fn(arg) and stop at the first trap, as if fn had returned there; the stack is unwound. It
 * may be anything, even a return to user mode that never returns. Catches nest.
 */
void trap_catch(void (*fn)(void *), void *arg, struct trap_seen *seen);

/* ---- the assembly's side ---- */

/* Load all of *regs, mode included, by the iret hypercall. */
NORETURN void regs_resume(struct regs *regs);
/* Calls fn(arg) on a remembered stack; trap_unwind, resumed as if jumped to, returns from it. */
void trap_run(void (*fn)(void *), void *arg);
extern char trap_unwind[];
extern word trap_unwind_sp;
extern char trap_entries[]; /* 256 stubs, TRAP_ENTRY_SIZE bytes each */
extern char event_entry[], failsafe_entry[], syscall_entry[], sysenter_entry[];
void trap_dispatch(struct regs *regs);

#define TRAP_ENTRY_SIZE 16

#endif
