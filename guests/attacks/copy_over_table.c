/*
 * Way out: let Xen itself overwrite a live page table (MMUEXT_COPY_PAGE onto it).
 * Rule: only a frame that is ordinary memory is written; a table's type is another (get_page_type).
 * Check: hypervisor.mm.page_types.PageTypes._refuse_type
 */
#include "attacks.h"

ATTACK(copy_over_table, "-EINVAL")
{
    *(pte_t *)own[1] = make_pte(neighbours_mfn, READABLE);
    if (refused(hang_table(own[0])) ||
        refused(extended(MMUEXT_COPY_PAGE, virt_to_mfn(own[0]), virt_to_mfn(own[1]))))
        return;
    window_shows_secret();
}
