/*
 * Way out: let Xen copy a whole frame of the neighbour's into ours (MMUEXT_COPY_PAGE).
 * Rule: both frames must be the domain's (get_page).
 * Check: hypervisor.mm.frames.FrameTable.get_page
 */
#include "attacks.h"

ATTACK(copy_neighbour, "-EINVAL")
{
    if (!refused(extended(MMUEXT_COPY_PAGE, virt_to_mfn(own[0]), neighbours_mfn)))
        finds_secret(own[0]);
}
