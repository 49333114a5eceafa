/*
 * Way out: go to ring 0 by the iret hypercall, on a segment of ring 0 that we have put into our GDT
 * before it was one.
 * Rule: a frame of ring 0 ends the domain (compat_iret), and a GDT has no such segments
 * (check_descriptor).
 * Check: hypervisor.traps.iret._refuse_ring_0
 * Check: hypervisor.mm.descriptors.checked_descriptor
 * Widths: x86_32 x86_32p
 */
#include "attacks.h"

#if IS_64
ATTACK(iret_ring0, "")
{
}
#else
#include "ring0.h"

/* EAX EIP CS EFLAGS ESP SS, events masked; there, note CS and return to ring 1 by lret. */
static word iret_to_ring_0(void)
{
    word cs;

    __asm__ volatile("movl %%esp, %%esi\n\t"
                     "pushl %[kernel_ss]; pushl %%esi; pushl $2; pushl %[cs]; pushl $1f; pushl $0\n\t"
                     "movl %[iret], %%eax; int $0x82\n\t"
                     "1:" BACK_TO_RING_1
                     : "=&a"(cs)
                     : [iret] "i"(__HYPERVISOR_iret), [cs] "i"(RING0_CS), RING1_SELECTORS
                     : "esi", "memory");
    return cs;
}

ATTACK(iret_ring0, "crash")
{
    if (!refused(segment_of_ring_0()))
        show_ring(iret_to_ring_0());
}
#endif
