/*
 * Way out: fill a page with descriptors first, and name it as the GDT then.
 * Rule: all descriptors of a page are checked when it becomes a table's (alloc_segdesc_page).
 * Check: hypervisor.mm.descriptors.checked_descriptor
 */
#include "attacks.h"

ATTACK(gdt_forged, IS_64 ? "ring 3" : "ring 1")
{
    word mfn = virt_to_mfn(own[0]);
    u32 ring;

    ((u64 *)own[0])[2] = DESC_RING0_CODE;
    if (refused(map(own[0], mfn, READABLE)) || refused(hv_set_gdt(&mfn, 512)))
        return;
    ring = desc_dpl(((volatile u64 *)own[0])[2]);
    if (!ring)
        return escaped("a segment of ring 0 in the GDT");
    outcome("ring %u", ring);
}
