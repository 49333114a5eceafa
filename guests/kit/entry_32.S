/*
 * 32-bit, with and without PAE: the way in from Xen and the way back.
 *
 * The kernel runs in ring 1, on CS e019 and SS e021. Every trap ends with the iret hypercall, which
 * restores the upcall mask together with the flags; a native iret would leave it.
 */
#include <generated/offsets.h>

#include "xen/numbers.h"
#include "xen/segments.h"

    .section .text.start, "ax"

/*
 * Start of day. Xen enters with esi = virtual address of start_info, esp = top of a one-page stack,
 * flat segments, flags clear but IF, events masked. We move to a stack of our own and never return.
 */
    .globl _start
_start:
    cld
    mov $boot_stack_top, %esp
    xor %ebp, %ebp                  /* backtraces end here */
    push %esi
    call kit_start
    ud2

/* The hypercall page: Xen writes one way in per hypercall number, 32 bytes each. */
    .globl hypercall_page
    .balign 4096
hypercall_page:
    .skip 4096

    .text

/*
 * Traps. Xen leaves on the stack (the current one when ring 1 was interrupted, else
 * kernel_ss:kernel_esp):
 *
 *     (+16 ss             only from ring 2 or 3)
 *     (+12 esp            only from ring 2 or 3)
 *      + 8 eflags         IF = not the upcall mask, IOPL = 0
 *      + 4 cs | mask << 16
 *   esp -> eip            (or the error code, and the rest 4 higher, for vectors that have one)
 *
 * Each stub completes that to the tail of struct regs: an error code of 0 where there is none, and
 * its vector. C finds stub n at trap_entries + n * TRAP_ENTRY_SIZE.
 */
    .globl trap_entries
    .balign TRAP_ENTRY_SIZE
trap_entries:
    .set vec, 0
    .rept 256
    .if vec >= 32 || !((VECTORS_WITH_ERROR_CODE >> vec) & 1)
    push $0
    .endif
    push $vec
    jmp trap_common
    .balign TRAP_ENTRY_SIZE
    .set vec, vec + 1
    .endr

/* Events and sysenter come in like a trap without an error code. */
.macro callback_entry name, vector
    .globl \name
\name:
    push $0
    push $\vector
    jmp trap_common
.endm
    callback_entry event_entry, VECTOR_EVENT
    callback_entry syscall_entry, VECTOR_SYSCALL
    callback_entry sysenter_entry, VECTOR_SYSENTER

/*
 * Failsafe: a segment register could not be reloaded when Xen came back to this vCPU, which has a
 * null selector there now. Below the usual frame lie those that were to be loaded:
 *
 *     +12 gs   +8 fs   +4 es   esp -> ds,   and above: eip, cs, ...
 */
    .globl failsafe_entry
failsafe_entry:
    popl %ss:failsafe_selectors
    popl %ss:failsafe_selectors + 4
    popl %ss:failsafe_selectors + 8
    popl %ss:failsafe_selectors + 12
    push $0
    push $VECTOR_FAILSAFE
    jmp trap_common

/* esp -> vector, error, eip, ...: push the rest of struct regs and let C look at it. User mode may
 * have left anything in the data segments, so load our own. */
trap_common:
    push %gs
    push %fs
    push %es
    push %ds
    push %eax
    push %ebp
    push %edi
    push %esi
    push %edx
    push %ecx
    push %ebx
    cld
    mov $FLAT_KERNEL_DS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %esp, %ebx
    and $-16, %esp
    sub $12, %esp
    push %ebx
    call trap_dispatch
    mov %ebx, %eax
    jmp resume

/*
 * NORETURN void regs_resume(struct regs *regs): load everything in *regs. esp walks through the
 * structure, and the iret hypercall finds there, once the page's stub has pushed eax over the
 * error:
 *
 *     esp -> eax, eip, cs, eflags, and esp, ss if cs is for ring 2 or 3
 */
    .globl regs_resume
regs_resume:
    mov 4(%esp), %eax
resume:
    mov %eax, %esp
    pop %ebx
    pop %ecx
    pop %edx
    pop %esi
    pop %edi
    pop %ebp
    pop %eax
    pop %ds
    pop %es
    pop %fs
    pop %gs
    add $(REGS_ip - REGS_vector), %esp
    jmp hypercall_page + __HYPERVISOR_iret * HYPERCALL_SLOT_SIZE

/*
 * void trap_run(void (*fn)(void *), void *arg): call fn(arg). trap_unwind is where a trap inside fn
 * is resumed to come back from here early, with everything but the remembered stack unknown.
 */
    .globl trap_run, trap_unwind
trap_run:
    push %ebp
    mov %esp, %ebp
    push %ebx
    push %esi
    push %edi
    pushl trap_unwind_sp
    mov %esp, trap_unwind_sp
    mov 8(%ebp), %eax
    pushl 12(%ebp)
    call *%eax
trap_unwind:
    mov $FLAT_KERNEL_DS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov trap_unwind_sp, %esp
    pushl $0x2
    popfl
    popl trap_unwind_sp
    pop %edi
    pop %esi
    pop %ebx
    pop %ebp
    ret

    .bss
    .globl trap_unwind_sp
    .balign 16384                   /* smp.c finds the vCPU's number at a stack's bottom: 0 */
boot_stack:
    .skip 16384
boot_stack_top:
    .balign 4
trap_unwind_sp:
    .skip 4
    .globl failsafe_selectors
failsafe_selectors:
    .skip 16

    .section .note.GNU-stack, "", @progbits
