/*
 * Way out: the same by way of the free list. Give the touched page back, get it again as another,
 * fresh from Xen, make that a table, and write it where the CPU still remembers the old one.
 * Rule: a frame is flushed for before it is given to anybody (alloc_heap_pages).
 * Check: hypervisor.mm.frames.FrameTable._give
 */
#include "attacks.h"

static long give_and_take(word *mfn)
{
    long err = map_lazily(own[0], 0, 0);

    if (!err && release_frame(*mfn, DOMID_SELF) != 1)
        err = -XEN_EINVAL;
    return err ? err : populate_frame(virt_to_pfn(own[0]), mfn);
}

ATTACK(stale_freed, "#PF(2)")
{
    word mfn = virt_to_mfn(own[0]);

    make_window();
    if (!poke(own[0], 0) || refused(give_and_take(&mfn)) ||
        refused(update(entry_maddr(pt_walk(WINDOW, 2)), make_pte(mfn, WRITABLE))))
        return;
    if (poke(own[0], (word)make_pte(neighbours_mfn, READABLE)))
        window_shows_secret();
}
