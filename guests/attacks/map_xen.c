/*
 * Way out: map Xen's own frame, writable: that of the machine-to-physical table, whose number Xen
 * tells everybody.
 * Rule: no guest maps a frame of Xen's that was not lent to it (get_page_from_l1e).
 * Check: hypervisor.mm.leaf_tables.LeafTables._refuse_frame
 */
#include "attacks.h"

ATTACK(map_xen, "-EBUSY")
{
    word mfn = 0;
    struct xen_machphys_mfn_list list = { .max_extents = 1, .extent_start = &mfn };

    if (refused(hv_memory_op(XENMEM_machphys_mfn_list, &list)) ||
        refused(map(own[0], mfn, WRITABLE)))
        return;
    if (poke(&((word *)own[0])[1], 0xbad) && MACHINE_TO_PHYS[1] == 0xbad)
        escaped("wrote Xen's machine-to-physical table");
}
