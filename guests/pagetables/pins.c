/*
 * Pins: a table stays validated while no entry names it (MMUEXT_PIN_L1_TABLE to UNPIN_TABLE,
 * do_mmuext_op in Xen's arch/x86/mm.c).
 */
#include "console.h"
#include "pagetables.h"

static void test_level(int level)
{
    pte_t *table = fresh_page();
    char id[24];

#define ID(what) (format(id, sizeof(id), "pin%d." what, level), id)
    expect(ID("writable"), "a page that is mapped writable", -XEN_EINVAL, pin(level, table));
    make_read_only(table);
    expect(ID("fine"), "a page that is not", 0, pin(level, table));
    expect(ID("twice"), "one pin is all", -XEN_EINVAL, pin(level, table));
    for (int other = 1; other <= PT_LEVELS; other++)
        if (other != level && !(PT_LEVELS == 3 && other == 3))
            expect(ID("other-level"), "and it is of one level", -XEN_EINVAL, pin(other, table));
    expect(ID("protect"), "it is not mapped writable", -XEN_EBUSY,
           protect_page(table, PTE_P | PTE_RW));
    expect(ID("unpin"), "until it is let go", 0, unpin(table));
    expect(ID("unpin-twice"), "which is done once", -XEN_EINVAL, unpin(table));
    expect(ID("protect-then"), "then it is a page again", 0,
           protect_page(table, PTE_P | PTE_RW));
#undef ID
    give_back(table);
}

/* An unpinned table that an entry names stays a table. */
static void test_named(void)
{
    pte_t *table = fresh_table();

    pin(1, table);
    set_entry(free_entry(2), make_pte(virt_to_mfn(table), PTE_RIGHTS));
    expect("pin.named-unpin", "a table that an entry names can be unpinned", 0, unpin(table));
    expect("pin.named-still", "and stays one", -XEN_EBUSY, protect_page(table, PTE_P | PTE_RW));
    set_entry(free_entry(2), 0);
    extended(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
    expect("pin.no-longer", "until none does", 0, protect_page(table, PTE_P | PTE_RW));
    give_back(table);
}

static void test_refusals(void)
{
    pte_t *table = fresh_page(), *page = fresh_page();
    u32 self = is_dom0 ? 0 : 1;

    expect("pin.no-frame", "a frame that does not exist", -XEN_EINVAL,
           extended(MMUEXT_PIN_L1_TABLE, NO_FRAME, 0));
    expect("pin.no-frame-unpin", "is not unpinned", -XEN_EINVAL,
           extended(MMUEXT_UNPIN_TABLE, NO_FRAME, 0));
    table[9] = make_pte(virt_to_mfn(table), PTE_P | PTE_RW);
    make_read_only(table);
    expect("pin.bad-entry", "a table with a bad entry", -XEN_EBUSY, pin(1, table));
    make_writable(table);
    table[9] = make_pte(virt_to_mfn(page), PTE_P | PTE_RW);
    make_read_only(table);
    expect("pin.good-entry", "and with a good one", 0, pin(1, table));
    make_read_only(page);
    expect("pin.held", "whose page is not a table meanwhile", -XEN_EINVAL, pin(1, page));
    unpin(table);
    expect("pin.released", "but afterwards", 0, pin(1, page));
    unpin(page);
    expect("pin.nobodys", "a table of nobody's", -XEN_ESRCH,
           extended_foreign(MMUEXT_PIN_L1_TABLE, virt_to_mfn(page), 0, NO_DOMAIN));
    expect("pin.own-number", "or of one's own by number", -XEN_ESRCH,
           extended_foreign(MMUEXT_PIN_L1_TABLE, virt_to_mfn(page), 0, self));
    if (PT_LEVELS < 4)
        expect("pin4.ignored", "a level that the width lacks is passed over", 0,
               extended(MMUEXT_PIN_L4_TABLE, virt_to_mfn(page), 0));
    give_back(table);
    give_back(page);
}

void test_pins(void)
{
    for (int level = 1; level <= PT_LEVELS; level++)
        if (!(PT_LEVELS == 3 && level == 3))
            test_level(level);
    test_named();
    test_refusals();
}
