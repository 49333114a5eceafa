/*
 * Way out: Xen keeps a run-state area where we say: in a page table. A time is an entry.
 * Rule: what Xen writes for a guest needs a writable mapping; what cannot be written is left.
 * Check: hypervisor.mm.guest_memory.GuestMemory._translate
 */
#include "attacks.h"

ATTACK(runstate_over_table, "not written")
{
    const void *area[2] = { own[0], NULL };

    if (refused(hang_table(own[0])) ||
        refused(hv_vcpu_op(VCPUOP_register_runstate_memory_area, 0, area)))
        return;
    outcome("not written");
    for (int i = 0; i < 6; i++)
        if (((volatile u64 *)own[0])[i])
            escaped("Xen wrote the time into a page table");
}
