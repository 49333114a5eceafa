/*
 * Way out: the forged table lies one level down, below one that is pinned and looks harmless.
 * Rule: a table is validated with everything below it (promote_l2_table).
 * Check: hypervisor.mm.leaf_tables.LeafTables._refuse_frame
 */
#include "attacks.h"

ATTACK(map_neighbour_tree, "-EBUSY")
{
    pte_t *lower = (pte_t *)own[0], *upper = (pte_t *)own[1];

    lower[0] = make_pte(neighbours_mfn, READABLE);
    upper[0] = make_pte(virt_to_mfn(lower), WRITABLE);
    if (refused(map(lower, virt_to_mfn(lower), READABLE)) ||
        refused(map(upper, virt_to_mfn(upper), READABLE)) ||
        refused(extended(MMUEXT_PIN_L2_TABLE, virt_to_mfn(upper), 0)) || refused(hang_table(lower)))
        return;
    window_shows_secret();
}
