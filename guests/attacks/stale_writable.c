/*
 * Way out: keep writing a page table through the TLB. Map the page writable, touch it, take the
 * mapping away without a flush, make the page a table, and write it where the CPU still remembers.
 * Rule: a frame that has lost a writable mapping is flushed for before it becomes something else
 * (tlbflush_timestamp).
 * Check: hypervisor.mm.frames.FrameTable.settle
 */
#include "attacks.h"

static long table_at_window(void)
{
    u64 l2e = entry_maddr(pt_walk(WINDOW, 2));
    long err = map_lazily(own[0], virt_to_mfn(own[0]), READABLE);

    return err ? err : update(l2e, make_pte(virt_to_mfn(own[0]), WRITABLE));
}

ATTACK(stale_writable, "#PF(3)")
{
    make_window();
    if (!poke(own[0], 0) || refused(table_at_window()))
        return;
    if (poke_entry((pte_t *)own[0], make_pte(neighbours_mfn, READABLE)))
        window_shows_secret();
}
