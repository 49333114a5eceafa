/*
 * Way out: name a page as the GDT that we keep mapped writable, and write descriptors into it that
 * nobody checks.
 * Rule: a frame of descriptors is mapped writable nowhere (set_gdt, PGT_seg_desc_page).
 * Check: hypervisor.mm.page_types.PageTypes._refuse_type
 */
#include "attacks.h"

ATTACK(gdt_writable, "-EINVAL")
{
    word mfn = virt_to_mfn(own[0]);

    if (refused(hv_set_gdt(&mfn, 512)))
        return;
    ((volatile u64 *)own[0])[2] = DESC_RING0_CODE;
    escaped("a segment of ring 0 in the GDT");
}
