/*
 * Way out, for a program: have its kernel take it for the kernel. The engine lets an iret with
 * EFLAGS.VM into virtual-8086 mode from any ring, as no CPU does; there CS is any number, also one
 * that is the kernel's, and a kernel that finds it in a trap's frame returns to kernel mode.
 * Rule: virtual-8086 mode is user mode, and the frames of its traps say so.
 * Check: hypervisor.traps.bounce._out_of_vm86
 */
#include "attacks.h"
#include "user.h"

/* What says "kernel" in a frame. */
#if IS_64
#define KERNELS_CS 0xe030
#define CODE_BITS ".code64\n"
#else
#define KERNELS_CS 0xe019
#define CODE_BITS ""
#define FLAT_USER_CS32 FLAT_USER_CS
#endif
_Static_assert(KERNELS_CS == FRAME_KERNEL_CS, "");

/* GS FS DS ES SS ESP, EFLAGS with VM and IOPL 3, CS EIP. 32-bit code in all widths. */
__asm__(".pushsection .text\n"
        ".code32\n"
        "vm86_program:\n"
        "push $0; push $0; push $0; push $0; push $0; push $0x1000\n"
        "push $0x23002; push $" STRING(KERNELS_CS) "; push $0; iret\n"
        "vm86_program_end:\n" CODE_BITS
        ".popsection");
extern char vm86_program[], vm86_program_end[];

ATTACK(vm86_frame, "user mode")
{
    struct trap_seen seen;
    struct regs regs;

    user_init();
    user_load(vm86_program, vm86_program_end, &regs);
    regs.cs = FLAT_USER_CS32;
    user_continue(&regs, &seen);
    outcome("user mode");
    if (!regs_from_user(&seen.regs))
        escaped("a program's trap looks like its kernel's");
}
