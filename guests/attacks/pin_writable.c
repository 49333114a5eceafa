/*
 * Way out: make a page table of a page that stays mapped writable elsewhere.
 * Rule: a frame is a page table or mapped writable, never both (get_page_type).
 * Check: hypervisor.mm.page_types.PageTypes._refuse_type
 */
#include "attacks.h"

ATTACK(pin_writable, "-EINVAL")
{
    if (refused(map(own[1], virt_to_mfn(own[0]), WRITABLE)) || refused(hang_table(own[0])))
        return;
    *(volatile pte_t *)own[1] = make_pte(neighbours_mfn, READABLE);
    window_shows_secret();
}
