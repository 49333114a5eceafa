/* Port reads that nobody answers: what Linux calibrates its timer by. */
#include "bench.h"

#include "hypercall.h"

void port_loop(u64 count)
{
    hv_set_iopl(1);
    for (u64 i = 0; i < count; i++)
        __asm__ volatile("inb $0x61, %%al" ::: "eax");
    hv_set_iopl(0);
}
