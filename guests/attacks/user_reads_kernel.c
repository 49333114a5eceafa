/*
 * Way out, for a program: read its kernel's memory. A 64-bit kernel and its programs share ring 3
 * but not page tables; where the kernel has run in the engine's ring 3 itself, what it touched is
 * in the TLB that programs use.
 * Rule: that TLB is empty of the kernel when user mode begins (a root of its own, and a flush).
 * Check: hypervisor.traps.entry.TrapEntry.before_user_mode
 * Widths: x86_64
 */
#include "attacks.h"

#if !IS_64
ATTACK(user_reads_kernel, "")
{
}
#else
#include "user.h"

__asm__(".pushsection .text\n"
        "reading_program: mov (%rdi), %rax\n"
        "int3\n"
        "reading_program_end:\n"
        ".popsection");
extern char reading_program[], reading_program_end[];

/* A selector of ring 3 cannot be loaded into SS below it, so this instruction is done in ring 3,
 * and so is what follows, until something is asked of Xen. */
static void touch_in_ring_3(volatile word *page)
{
    __asm__ volatile("mov %w0, %%ss" : : "r"(FLAT_KERNEL_SS));
    (void)*page;
}

ATTACK(user_reads_kernel, "#PF(4)")
{
    struct trap_seen seen;
    struct regs regs;

    user_init();
    user_load(reading_program, reading_program_end, &regs);
    regs.di = (word)own[0];
    *(word *)own[0] = SECRET;
    touch_in_ring_3((volatile word *)own[0]);
    user_continue(&regs, &seen);
    if (trapped(&seen) && seen.regs.vector == EXC_BP && seen.regs.ax == SECRET)
        escaped("a program read its kernel's memory");
}
#endif
