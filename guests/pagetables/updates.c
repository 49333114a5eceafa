/*
 * mmu_update, one request each: what its low bits command, where it may write, on whose behalf
 * (do_mmu_update in Xen's arch/x86/mm.c).
 */
#include "pagetables.h"

static void test_commands(void)
{
    const pte_t *leaf = free_entry(1);
    void *page = fresh_page();
    pte_t clean = make_pte(virt_to_mfn(page), PTE_P | PTE_RW);
    word pfn = virt_to_pfn(page);

    set_entry(leaf, clean | PTE_A | PTE_D);
    expect("update.preserve", "PT_UPDATE_PRESERVE_AD", 0,
           update_as(MMU_PT_UPDATE_PRESERVE_AD, leaf, clean, DOMID_SELF));
    check_equal("update.preserved", "keeps A and D", leaf_flags(PTE_RIGHTS & ~PTE_US),
                *leaf & ~PTE_FRAME);
    expect("update.normal", "NORMAL_PT_UPDATE", 0, update(leaf, clean));
    check_equal("update.cleared", "does not", leaf_flags(PTE_P | PTE_RW), *leaf & ~PTE_FRAME);
    expect("update.no-translate", "PT_UPDATE_NO_TRANSLATE is the same for PV guests", 0,
           update_as(MMU_PT_UPDATE_NO_TRANSLATE, leaf, clean | PTE_A, DOMID_SELF));
    set_entry(leaf, 0);
    expect("update.machphys", "MACHPHYS_UPDATE", 0,
           update_as(MMU_MACHPHYS_UPDATE, page, 0x1234, DOMID_SELF));
    check_equal("update.m2p", "changes our number for a frame", 0x1234,
                MACHINE_TO_PHYS[virt_to_mfn(page)]);
    update_as(MMU_MACHPHYS_UPDATE, page, pfn, DOMID_SELF);
#if PT_LEVELS > 2
    for (unsigned command = 4; command < 8; command++)
        expect("update.unknown", "commands that do not exist", -XEN_ENOSYS,
               update_as(command, leaf, clean, DOMID_SELF));
    check_equal("update.unknown-done", "do nothing", 0, *leaf);
#endif
    give_back(page);
}

static long update_at(u64 ptr, u64 val)
{
    struct mmu_update request = { .ptr = ptr, .val = val };

    return hv_mmu_update(&request, 1, NULL);
}

static void test_places(void)
{
    pte_t *page = fresh_page(), *table = fresh_page();

    expect("place.page", "a word of an ordinary page", 0, update(page + 3, 0x1234567));
    check_equal("place.written", "is simply written", 0x1234567, page[3]);
    expect("place.no-frame", "a frame that does not exist", -XEN_EINVAL,
           update_at((u64)NO_FRAME << PAGE_SHIFT, 0));
    expect("place.machphys", "and it has no number", -XEN_EINVAL,
           update_at((u64)NO_FRAME << PAGE_SHIFT | MMU_MACHPHYS_UPDATE, 0));
    make_read_only(table);
    expect("place.read-only", "a page without writable mapping is a page too", 0,
           update(table, make_pte(virt_to_mfn(page), PTE_P | PTE_PWT | PTE_RW)));
    check_equal("place.unchecked", "its words are not looked at", PTE_P | PTE_PWT | PTE_RW,
                table[0] & ~PTE_FRAME);
    expect("place.then", "until it becomes a table", is_dom0 ? 0 : -XEN_EINVAL, pin(1, table));
    if (is_dom0)
        unpin(table);
    expect("place.m2p", "Xen's frames", -XEN_EINVAL,
           update_at((u64)pte_mfn(*pt_walk(MACH2PHYS_VIRT_START, IS_64 ? 4 : 2)) << PAGE_SHIFT,
                     0));
    give_back(page);
    give_back(table);
}

static void test_foreign(void)
{
    const pte_t *leaf = free_entry(1);
    void *page = fresh_page();
    pte_t value = make_pte(virt_to_mfn(page), PTE_P);
    u32 self = is_dom0 ? 0 : 1;

    expect("foreign.none", "frames of a domain that does not exist", -XEN_ESRCH,
           update_as(0, leaf, value, NO_DOMAIN));
    expect("foreign.self", "nobody is foreign to itself by its number", -XEN_ESRCH,
           update_as(0, leaf, value, self));
    expect("foreign.no-tables", "tables of a domain that does not exist", -XEN_ESRCH,
           update_as(0, leaf, value, (NO_DOMAIN + 1) << 16 | DOMID_SELF));
    expect("foreign.own-tables", "one's own tables may be named by number", 0,
           update_as(0, leaf, value, (self + 1) << 16 | DOMID_SELF));
    set_entry(leaf, 0);
    expect_by_privilege("foreign.xen", "a frame of ours is none of Xen's", -XEN_EPERM, -XEN_EBUSY,
                   update_as(0, leaf, value, DOMID_XEN));
    expect("foreign.io", "nor of the owner of devices", -XEN_EBUSY,
           update_as(0, leaf, value, DOMID_IO));
    check_equal("foreign.nothing", "nothing was entered", 0, *leaf);
    give_back(page);
}

void test_updates(void)
{
    test_commands();
    test_places();
    test_foreign();
}
