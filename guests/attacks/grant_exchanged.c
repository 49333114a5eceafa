/*
 * Way out: exchange a frame of our grant table for one of ours, keep it mapped, and make a page
 * table of it when Xen no longer holds it as what it was.
 * Rule: what is exchanged must be in the domain's reservation, and a frame that Xen shares is in
 * nobody's (steal_page).
 * Check: hypervisor.hypercalls.memory_exchange._stealable
 * Check: hypervisor.mm.frames.FrameTable.release_allocation
 */
#include "attacks.h"

static long exchange_for_own(word mfn)
{
    word taken = virt_to_pfn(own[1]);
    struct xen_memory_exchange exchange = {
        .in_ = { .extent_start = &mfn, .nr_extents = 1, .domid = DOMID_SELF },
        .out = { .extent_start = &taken, .nr_extents = 1, .domid = DOMID_SELF },
    };

    return hv_memory_op(XENMEM_exchange, &exchange);
}

ATTACK(grant_exchanged, "-EINVAL")
{
    word mfn = grant_frame();

    make_window();
    if (!mfn || refused(map(own[0], mfn, WRITABLE)) || refused(exchange_for_own(mfn)) ||
        refused(update(entry_maddr(pt_walk(WINDOW, 2)), make_pte(mfn, WRITABLE))))
        return;
    if (poke_entry((volatile pte_t *)own[0], make_pte(neighbours_mfn, READABLE)))
        window_shows_secret();
}
