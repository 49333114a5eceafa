/*
 * Way out: the same with an LDT, whose pages are looked at when a descriptor is first used: load
 * one, then map its page writable.
 * Rule: a frame of descriptors is mapped writable nowhere (pv_map_ldt_shadow_page).
 * Check: hypervisor.mm.page_types.PageTypes._refuse_type
 */
#include "attacks.h"

static void load_ds(void *arg)
{
    (void)arg;
    __asm__ volatile("mov %w0, %%es" : : "r"(0x7));
}

ATTACK(ldt_writable, "-EBUSY")
{
    struct trap_seen seen;
    word mfn = virt_to_mfn(own[0]);

    ((u64 *)own[0])[0] = DESC_RING3_DATA;
    if (refused(map(own[0], mfn, READABLE)) || refused(extended(MMUEXT_SET_LDT, (word)own[0], 512)))
        return;
    trap_catch(load_ds, NULL, &seen);
    if (seen.trapped)
        return outcome("the descriptor could not be loaded");
    if (refused(map(own[0], mfn, WRITABLE)))
        return;
    ((volatile u64 *)own[0])[1] = DESC_RING0_CODE;
    escaped("a segment of ring 0 in the LDT");
}
