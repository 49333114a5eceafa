/*
 * Way out: make a page table of a frame of our grant table. We may write that one, Xen has lent it
 * to us, and it stays Xen's: forge an entry in it, map it nowhere writable, and use it.
 * Rule: a frame that Xen shares has its type for good (share_xen_page_with_guest).
 * Check: hypervisor.mm.page_types.PageTypes._refuse_type
 */
#include "attacks.h"

ATTACK(grant_as_table, "-EINVAL")
{
    word mfn = grant_frame();

    make_window();
    if (!mfn || refused(map(own[0], mfn, WRITABLE)) ||
        !poke_entry((volatile pte_t *)own[0], make_pte(neighbours_mfn, READABLE)) ||
        refused(map(own[0], mfn, READABLE)) ||
        refused(update(entry_maddr(pt_walk(WINDOW, 2)), make_pte(mfn, WRITABLE))))
        return;
    window_shows_secret();
}
