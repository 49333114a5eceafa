/*
 * Way out: change how the CPU works: its EFER has the no-execute bit, and the way into Xen.
 * Rule: of the MSRs a guest writes the few that are its own (guest_wrmsr, write_msr).
 * Check: hypervisor.traps.msr.write
 */
#include "attacks.h"

static void write_efer(void *arg)
{
    (void)arg;
    __asm__ volatile("wrmsr" : : "c"(0xc0000080), "a"(0), "d"(0));
}

ATTACK(msr_efer, "#GP(0)")
{
    struct trap_seen seen;

    trap_catch(write_efer, NULL, &seen);
    if (!trapped(&seen))
        escaped("wrote EFER");
}
