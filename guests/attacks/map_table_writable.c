/*
 * Way out: map a live page table writable, and write what we like into it.
 * Rule: a frame is a page table or mapped writable, never both (get_page_type).
 * Check: hypervisor.mm.page_types.PageTypes._refuse_type
 */
#include "attacks.h"

ATTACK(map_table_writable, "-EBUSY")
{
    if (refused(hang_table(own[0])) || refused(map(own[0], virt_to_mfn(own[0]), WRITABLE)))
        return;
    *(volatile pte_t *)own[0] = make_pte(neighbours_mfn, READABLE);
    window_shows_secret();
}
