/*
 * Way out: keep our vcpu_info in a page table. What it held moves there, and there is a word in it
 * that we choose: the address of the last page fault becomes an entry.
 * Rule: the frame must be ordinary memory (map_vcpu_info).
 * Check: hypervisor.mm.page_types.PageTypes._refuse_type
 */
#include "attacks.h"

#include "events.h"

#define OFFSET (offsetof(struct vcpu_info, arch))

ATTACK(vcpu_info_over_table, "-EINVAL")
{
    struct vcpu_register_vcpu_info info = { .mfn = virt_to_mfn(own[0]) };

    if (refused(hang_table(own[0])))
        return;
    vcpu_info()->arch.cr2 = (word)make_pte(neighbours_mfn, READABLE);
    if (!refused(hv_vcpu_op(VCPUOP_register_vcpu_info, 0, &info)))
        finds_secret((const void *)(WINDOW + (OFFSET / sizeof(pte_t) << PAGE_SHIFT)));
}
