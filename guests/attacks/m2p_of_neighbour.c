/*
 * Way out: claim the neighbour's frame in the machine-to-physical table, to confuse who reads it.
 * Rule: an entry is changed for a frame of one's own (MMU_MACHPHYS_UPDATE).
 * Check: hypervisor.mm.frames.FrameTable.get_page
 */
#include "attacks.h"

ATTACK(m2p_of_neighbour, "-EINVAL")
{
    if (refused(update((u64)neighbours_mfn << PAGE_SHIFT | MMU_MACHPHYS_UPDATE, 0xbad)))
        return;
    if (MACHINE_TO_PHYS[neighbours_mfn] == 0xbad)
        escaped("the neighbour's frame has another number");
}
