/*
 * Way out: the count of what a batch has done goes to an address of ours: one in a page table. The
 * count 1 is an entry that is present, and maps the machine's frame 0.
 * Rule: what Xen writes for a guest needs a writable mapping, as the guest's own store would.
 * Check: hypervisor.mm.guest_memory.GuestMemory._translate
 */
#include "attacks.h"

ATTACK(count_over_table, "not written")
{
    struct mmuext_op op = { .cmd = MMUEXT_TLB_FLUSH_LOCAL };
    word value;

    if (refused(hang_table(own[0])) || refused(hv_mmuext_op(&op, 1, (u32 *)own[0])))
        return;
    outcome("not written");
    if (*(volatile pte_t *)own[0] & PTE_P && peek((const void *)WINDOW, &value))
        escaped("mapped the machine's frame 0");
}
