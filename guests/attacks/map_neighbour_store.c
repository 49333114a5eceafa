/*
 * Way out: write the entry with a plain store, which Xen emulates for kernels that ask for it.
 * Rule: an emulated store is validated as mmu_update would be (ptwr_emulated_update).
 * Check: hypervisor.mm.leaf_tables.LeafTables._refuse_frame
 */
#include "attacks.h"

ATTACK(map_neighbour_store, "#PF(3)")
{
    pte_t *entry = (pte_t *)pt_walk((word)own[0], 1);

    if (refused(hv_vm_assist(VMASST_CMD_enable, VMASST_TYPE_writable_pagetables)))
        return;
    own[0][0] = 0;
    if (poke_entry(entry, make_pte(neighbours_mfn, READABLE)) &&
        !refused(extended(MMUEXT_TLB_FLUSH_LOCAL, 0, 0)))
        finds_secret(own[0]);
}
