/*
 * Way out: ask for a segment of ring 0 in the GDT.
 * Rule: the DPL of a segment is raised to the kernel's ring (check_descriptor).
 * Check: hypervisor.hypercalls.descriptors.checked_descriptor
 */
#include "attacks.h"

ATTACK(segment_ring0, IS_64 ? "ring 3" : "ring 1")
{
    word mfn = virt_to_mfn(own[0]);
    u32 ring;

    if (refused(map(own[0], mfn, READABLE)) || refused(hv_set_gdt(&mfn, 512)) ||
        refused(hv_update_descriptor(((u64)mfn << PAGE_SHIFT) + 16, DESC_RING0_CODE)))
        return;
    ring = desc_dpl(((volatile u64 *)own[0])[2]);
    if (!ring)
        return escaped("a segment of ring 0 in the GDT");
    outcome("ring %u", ring);
}
