/*
 * Way out: a task of our own: jumping to its descriptor loads all registers, rings too.
 * Rule: of system descriptors a guest has call gates only (check_descriptor).
 * Check: hypervisor.hypercalls.descriptors.checked_descriptor
 */
#include "attacks.h"

#define TSS ((u64)0x00008900 << 32 | 0x67)

ATTACK(task_segment, "-EINVAL")
{
    word mfn = virt_to_mfn(own[0]);

    if (refused(map(own[0], mfn, READABLE)) || refused(hv_set_gdt(&mfn, 512)) ||
        refused(hv_update_descriptor(((u64)mfn << PAGE_SHIFT) + 16, TSS)))
        return;
    if (((volatile u64 *)own[0])[2] == TSS)
        escaped("a task segment in the GDT");
}
