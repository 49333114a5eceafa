/*
 * Way out: let a handler run in ring 0. Its selector in the trap table says so, and names a segment
 * of ring 0 that we have put into our GDT before it was one.
 * Rule: a handler's selector gets the RPL of the kernel's ring (fixup_guest_code_selector), and a
 * GDT has no segments of ring 0 (check_descriptor).
 * Check: hypervisor.hypercalls.callbacks._fixed_selector
 * Check: hypervisor.mm.descriptors.checked_descriptor
 * Widths: x86_32 x86_32p
 */
#include "attacks.h"

#if IS_64
ATTACK(trap_ring0, "")
{
}
#else
#include "ring0.h"

#define VECTOR 200

extern char handler_of_ring_0[];

static word trap_to_ring_0(void)
{
    word cs;

    __asm__ volatile("movl %%esp, %%esi\n\t"
                     "int %[vector]\n\t"
                     ".globl handler_of_ring_0; handler_of_ring_0:" BACK_TO_RING_1
                     : "=&a"(cs)
                     : [vector] "i"(VECTOR), RING1_SELECTORS
                     : "esi", "memory");
    return cs;
}

ATTACK(trap_ring0, "ring 1")
{
    struct trap_info table[2] = { { .vector = VECTOR,
                                    .flags = TI_DPL(1),
                                    .cs = RING0_CS,
                                    .address = (word)handler_of_ring_0 },
                                  { .address = 0 } };

    if (!refused(segment_of_ring_0()) && !refused(hv_set_trap_table(table)))
        show_ring(trap_to_ring_0());
}
#endif
