/*
 * Way out: the same with the second vcpu_time_info.
 * Rule: what Xen writes for a guest needs a writable mapping; what cannot be written is left.
 * Check: hypervisor.mm.guest_memory.GuestMemory._translate
 */
#include "attacks.h"

ATTACK(time_over_table, "not written")
{
    const void *area[2] = { own[0], NULL };

    if (refused(hang_table(own[0])) ||
        refused(hv_vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, area)))
        return;
    outcome("not written");
    for (int i = 0; i < 4; i++)
        if (((volatile u64 *)own[0])[i])
            escaped("Xen wrote the time into a page table");
}
