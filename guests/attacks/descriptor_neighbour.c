/*
 * Way out: update_descriptor writes eight bytes at any machine address: the neighbour's, then.
 * Rule: the frame must be the domain's (do_update_descriptor).
 * Check: hypervisor.mm.frames.FrameTable.get_page
 */
#include "attacks.h"

ATTACK(descriptor_neighbour, "-EINVAL")
{
    if (!refused(hv_update_descriptor((u64)neighbours_mfn << PAGE_SHIFT, 0)))
        escaped("wrote the neighbour's memory");
}
