/*
 * Way out: map a frame of the neighbour's with update_va_mapping, and read it.
 * Rule: a page-table entry names frames of its own domain only (get_page_from_l1e).
 * Check: hypervisor.mm.leaf_tables.LeafTables._refuse_frame
 */
#include "attacks.h"

ATTACK(map_neighbour, "-EBUSY")
{
    if (!refused(map(own[0], neighbours_mfn, READABLE)))
        finds_secret(own[0]);
}
