/*
 * Way out: mmu_update also writes ordinary memory: let it write the neighbour's.
 * Rule: what is written must be a frame of the domain's (get_page).
 * Check: hypervisor.mm.frames.FrameTable.get_page
 */
#include "attacks.h"

ATTACK(write_neighbour, "-EINVAL")
{
    if (!refused(update((u64)neighbours_mfn << PAGE_SHIFT, 1)))
        escaped("wrote the neighbour's memory");
}
