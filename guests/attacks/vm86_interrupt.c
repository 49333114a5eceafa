/*
 * Way out, for a program: the same by a trap that Xen takes the shortest way there is: its code is
 * mapped where virtual-8086 mode finds it, and ends in int3.
 * Rule: virtual-8086 mode is user mode, and the frames of its traps say so, whichever way they are
 * built.
 * Check: hypervisor.traps.bounce._out_of_vm86
 */
#include "attacks.h"
#include "user.h"

#if IS_64
#define KERNELS_CS 0xe030
#define CODE_BITS ".code64\n"
#else
#define KERNELS_CS 0xe019
#define CODE_BITS ""
#define FLAT_USER_CS32 FLAT_USER_CS
#endif
_Static_assert(KERNELS_CS == FRAME_KERNEL_CS, "");

/* The first page of which CS reaches every byte. */
#define LOW_CODE (((KERNELS_CS << 4) + PAGE_SIZE) & -PAGE_SIZE)

/* GS FS DS ES SS ESP, EFLAGS with VM and IOPL 3, CS EIP: to the int3, as it lies there. */
__asm__(".pushsection .text\n"
        ".code32\n"
        "interrupting_program:\n"
        "push $0; push $0; push $0; push $0; push $0; push $0x1000\n"
        "push $0x23002; push $" STRING(KERNELS_CS) "\n"
        "mov %ebx, %eax; add $(2f - interrupting_program), %eax; push %eax; iret\n"
        "int3_of_program: 2: int3\n"
        "interrupting_program_end:\n" CODE_BITS
        ".popsection");
extern char interrupting_program[], int3_of_program[], interrupting_program_end[];

ATTACK(vm86_interrupt, "#BP")
{
    struct trap_seen seen;
    struct regs regs;

    user_init();
    map_page(LOW_CODE, pte_mfn(*pt_walk(USER_CODE, 1)), READABLE);
    user_load(interrupting_program, interrupting_program_end, &regs);
    regs.cs = FLAT_USER_CS32;
    regs.bx = LOW_CODE - (KERNELS_CS << 4);
    /* Once as programs do: the shortest way begins when the kernel's stack has been written. */
    regs.ip = USER_CODE + (word)(int3_of_program - interrupting_program);
    user_continue(&regs, &seen);
    regs.ip = USER_CODE;
    user_continue(&regs, &seen);
    if (trapped(&seen) && !regs_from_user(&seen.regs))
        escaped("a program's interrupt looks like its kernel's");
}
