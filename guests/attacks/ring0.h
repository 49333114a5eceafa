/* For 32-bit attacks that try to run in ring 0: a segment for it, and the way back. */
#ifndef ATTACKS_RING0_H
#define ATTACKS_RING0_H

#include "attacks.h"

/* The third descriptor of the page that becomes our GDT. */
#define RING0_CS 0x10

static inline long segment_of_ring_0(void)
{
    word mfn = virt_to_mfn(own[0]);
    long err;

    ((u64 *)own[0])[RING0_CS / 8] = DESC_RING0_CODE;
    err = map(own[0], mfn, READABLE);
    return err ? err : hv_set_gdt(&mfn, 512);
}

/* CS to EAX; then ring 1 again, wherever this was, with the stack that ESI has kept. */
#define BACK_TO_RING_1                                                                             \
    "movl %%cs, %%eax\n\t"                                                                         \
    "pushl %[kernel_ss]; pushl %%esi; pushl %[kernel_cs]; pushl $2f; lret\n\t"                      \
    "2: movl %%esi, %%esp\n\t"
#define RING1_SELECTORS [kernel_cs] "i"(FLAT_KERNEL_CS), [kernel_ss] "i"(FLAT_KERNEL_SS)

static inline void show_ring(word cs)
{
    if (!(cs & 3))
        return escaped("ran in ring 0");
    outcome("ring %d", (int)(cs & 3));
}

#endif
