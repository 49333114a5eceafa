/*
 * Way out: give a frame back and keep it mapped, until Xen gives it to somebody.
 * Rule: a frame is free when nothing names it any more, not before, and until then its owner holds
 * it (put_page, domain_adjust_tot_pages).
 * Check: hypervisor.mm.frames.FrameTable.release_allocation
 */
#include "attacks.h"

ATTACK(free_mapped, "-ENOMEM")
{
    word old = virt_to_mfn(own[0]), mfn = 0;

    if (release_frame(old, DOMID_SELF) != 1 ||
        refused(populate_frame(virt_to_pfn(own[0]), &mfn)))
        return;
    if (mfn == old)
        escaped("Xen gave away a frame that we have mapped");
    else
        outcome("-ENOMEM");
}
