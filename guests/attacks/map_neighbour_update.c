/*
 * Way out: the same by mmu_update, with the machine address of the entry.
 * Rule: every way to change an entry ends in the same validation (mod_l1_entry).
 * Check: hypervisor.mm.leaf_tables.LeafTables._refuse_frame
 */
#include "attacks.h"

ATTACK(map_neighbour_update, "-EBUSY")
{
    if (!refused(update(entry_maddr(pt_walk((word)own[0], 1)), make_pte(neighbours_mfn, WRITABLE))))
        finds_secret(own[0]);
}
