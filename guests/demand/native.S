/*
 * 32-bit: a page fault's way in and out without the iret hypercall.
 *
 * Ring 1 may return to ring 3 by itself, on a processor and under Xen: iret loads CS, SS and the
 * flags, and needs nobody. What it cannot do is change evtchn_upcall_mask, so the gate must not
 * mask events. Xen leaves on kernel_ss:kernel_esp:
 *
 *     +20 ss   +16 esp   +12 eflags   +8 cs | mask << 16   +4 eip   esp -> error code
 */
#include "types.h"
#include "xen/segments.h"

#if !IS_64
    .text
    .globl native_entry
native_entry:
    pusha
    push %ds
    push %es
    cld
    mov $FLAT_KERNEL_DS, %eax
    mov %eax, %ds
    mov %eax, %es
    mov 40(%esp), %eax              /* 8 registers and 2 selectors below the error code */
    mov 44(%esp), %edx
    push %eax
    push %edx
    call native_fault
    add $8, %esp
    pop %es
    pop %ds
    popa
    add $4, %esp                    /* the error code */
    iret
#endif

    .section .note.GNU-stack, "", @progbits
