/*
 * Way out: a loop. An L2 entry that names its own table shows the L1 tables as memory.
 * Rule: such an entry must not be writable, nor is what it shows then (get_l2_linear_pagetable).
 * Check: hypervisor.mm.pagetables.PageTables._get_linear
 */
#include "attacks.h"

ATTACK(linear_writable, "-EINVAL")
{
    const pte_t *l2e;
    word shown;

    if (refused(hang_table(own[0])))
        return;
    l2e = pt_walk(WINDOW, 2) + 1;
    if (refused(update(entry_maddr(l2e), make_pte(virt_to_mfn(l2e), WRITABLE))))
        return;
    shown = WINDOW + ((word)1 << (PAGE_SHIFT + PT_BITS)) + (pt_index(WINDOW, 2) << PAGE_SHIFT);
    if (poke_entry((pte_t *)shown, make_pte(neighbours_mfn, READABLE)))
        window_shows_secret();
}
