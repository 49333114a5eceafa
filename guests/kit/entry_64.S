/*
 * 64-bit: the way in from Xen and the way back.
 *
 * The kernel runs in ring 3 as it sees itself, on CS e033 and SS e02b. Every trap ends with the
 * iret hypercall, which restores the upcall mask together with the flags; a native iretq would
 * leave it.
 */
#include <generated/offsets.h>

#include "xen/numbers.h"
#include "xen/segments.h"

    .section .text.start, "ax"

/*
 * Start of day. Xen enters with rsi = virtual address of start_info, rsp = top of a one-page stack,
 * flags clear but IF, events masked. We move to a stack of our own and never return.
 */
    .globl _start
_start:
    cld
    mov $boot_stack_top, %rsp
    xor %ebp, %ebp                  /* backtraces end here */
    mov %rsi, %rdi
    call kit_start
    ud2

/* The hypercall page: Xen writes one way in per hypercall number, 32 bytes each. */
    .globl hypercall_page
    .balign 4096
hypercall_page:
    .skip 4096

    .text

/*
 * Traps. Xen leaves on the stack, which it chose (the interrupted one in kernel mode, else
 * kernel_sp):
 *
 *      +48 ss
 *      +40 rsp
 *      +32 rflags          IF = not the upcall mask, IOPL = 0
 *      +24 cs | mask << 32 RPL 0 when the kernel was interrupted, 3 for user mode
 *      +16 rip
 *     (+16 error code, and the rest 8 higher, for the vectors that have one)
 *      + 8 r11
 *   rsp -> rcx
 *
 * Each stub completes that to the tail of struct regs: pops the two registers, adds an error code
 * of 0 where there is none, and its vector. C finds stub n at trap_entries + n * TRAP_ENTRY_SIZE.
 */
    .globl trap_entries
    .balign TRAP_ENTRY_SIZE
trap_entries:
    .set vec, 0
    .rept 256
    pop %rcx
    pop %r11
    .if vec >= 32 || !((VECTORS_WITH_ERROR_CODE >> vec) & 1)
    push $0
    .endif
    push $vec
    jmp trap_common
    .balign TRAP_ENTRY_SIZE
    .set vec, vec + 1
    .endr

/* Events and the 64-bit syscall come in like a trap without an error code. */
.macro callback_entry name, vector
    .globl \name
\name:
    pop %rcx
    pop %r11
    push $0
    push $\vector
    jmp trap_common
.endm
    callback_entry event_entry, VECTOR_EVENT
    callback_entry syscall_entry, VECTOR_SYSCALL
    callback_entry sysenter_entry, VECTOR_SYSENTER

/*
 * Failsafe: a segment register could not be reloaded when Xen came back to this vCPU, which has a
 * null selector there now. The frame has those that were to be loaded, between r11 and rip:
 *
 *     +40 gs   +32 fs   +24 es   +16 ds   +8 r11   rsp -> rcx,   and above: rip, cs, ...
 */
    .globl failsafe_entry
failsafe_entry:
    pop %rcx
    pop %r11
    popq failsafe_selectors
    popq failsafe_selectors + 8
    popq failsafe_selectors + 16
    popq failsafe_selectors + 24
    push $0
    push $VECTOR_FAILSAFE
    jmp trap_common

/* rsp -> vector, error, rip, ...: push the rest of struct regs and let C look at it. */
trap_common:
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbx
    and $-16, %rsp
    call trap_dispatch
    mov %rbx, %rdi
    /* fall through: the way back */

/*
 * NORETURN void regs_resume(struct regs *regs): load everything in *regs. rsp walks through the
 * structure, and the iret hypercall finds there, once the page's stub has pushed its three:
 *
 *     rsp -> rax, r11, rcx, flags (0), rip, cs, rflags, rsp, ss
 *
 * They overwrite registers that have been popped by then.
 */
    .globl regs_resume
regs_resume:
    mov %rdi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    add $(REGS_ip - REGS_vector), %rsp
    push $0
    jmp hypercall_page + __HYPERVISOR_iret * HYPERCALL_SLOT_SIZE

/*
 * void trap_run(void (*fn)(void *), void *arg): call fn(arg). trap_unwind is where a trap inside fn
 * is resumed to come back from here early, with everything but the remembered stack unknown.
 */
    .globl trap_run, trap_unwind
trap_run:
    push %rbp
    mov %rsp, %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    pushq trap_unwind_sp
    mov %rsp, trap_unwind_sp
    mov %rdi, %rax
    mov %rsi, %rdi
    call *%rax
trap_unwind:
    mov trap_unwind_sp, %rsp
    pushq $0x2
    popfq
    popq trap_unwind_sp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret

    .bss
    .globl trap_unwind_sp
    .balign 16384                   /* smp.c finds the vCPU's number at a stack's bottom: 0 */
boot_stack:
    .skip 16384
boot_stack_top:
    .balign 8
trap_unwind_sp:
    .skip 8
    .globl failsafe_selectors
failsafe_selectors:
    .skip 32

    .section .note.GNU-stack, "", @progbits
