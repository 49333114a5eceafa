/*
 * Way out: write to Xen's region directly.
 * Rule: all that Xen maps there is read-only (for us, supervisor or not), and CR0.WP is set.
 * Check: hypervisor.mm.hole._leaf_flags
 */
#include "attacks.h"

ATTACK(store_to_m2p, "#PF(3)")
{
    word *entry = (word *)MACH2PHYS_VIRT_START + 1;

    if (poke(entry, 0xbad))
        escaped("wrote Xen's machine-to-physical table");
}
