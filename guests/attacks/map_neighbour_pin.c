/*
 * Way out: write the entry into a page while it is nothing but memory, then pin it as a table.
 * Rule: all entries of a page are validated when it becomes a page table (promote_l1_table).
 * Check: hypervisor.mm.leaf_tables.LeafTables._refuse_frame
 */
#include "attacks.h"

ATTACK(map_neighbour_pin, "-EBUSY")
{
    *(pte_t *)own[0] = make_pte(neighbours_mfn, READABLE);
    if (refused(map(own[0], virt_to_mfn(own[0]), READABLE)) ||
        refused(extended(MMUEXT_PIN_L1_TABLE, virt_to_mfn(own[0]), 0)) || refused(hang_table(own[0])))
        return;
    window_shows_secret();
}
