/*
 * Way out: let a hypercall's result land in a page table. A multicall's entry straddles two pages:
 * its number in one of ours, its result and arguments in a live table. get_debugreg returns what we
 * have put into the register: an entry for the neighbour's frame.
 * Rule: what Xen writes for a guest needs a writable mapping, as the guest's own store would.
 * Check: hypervisor.mm.guest_memory.GuestMemory._translate
 */
#include "attacks.h"

ATTACK(result_over_table, "-EFAULT")
{
    struct multicall_entry *call = (void *)(own[1] - sizeof(word));

    call->op = __HYPERVISOR_get_debugreg; /* args[0], in the table, is 0: DR0 */
    if (refused(hang_table(own[1])) ||
        refused(hv_set_debugreg(0, (word)make_pte(neighbours_mfn, READABLE))))
        return;
    if (!refused(hv_multicall(call, 1)))
        window_shows_secret();
}
