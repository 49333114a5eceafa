/*
 * Whole descriptor tables: their pages are checked when they become that, and not written while
 * they are (set_gdt, MMUEXT_SET_LDT; Xen's arch/x86/pv/descriptor-tables.c).
 */
#include "console.h"
#include "pagetables.h"
#include "traps.h"

#define DATA_3 0x00cff3000000ffffull
#define DATA_0 0x00cf93000000ffffull
#define TSS 0x0000890000000067ull

static void test_gdt(void)
{
    u64 *page = fresh_page(), *other = fresh_page();
    word mfns[2] = { virt_to_mfn(page), virt_to_mfn(other) };

    page[1] = DATA_0;
    page[2] = TSS;
    expect("gdt.writable", "a page that is mapped writable", -XEN_EINVAL, hv_set_gdt(mfns, 8));
    make_read_only(page);
    expect("gdt.bad", "one with a task state segment in it", -XEN_EINVAL, hv_set_gdt(mfns, 8));
    check_equal("gdt.bad-kept", "is looked at, and not changed for the rest", TSS, page[2]);
    make_writable(page);
    page[2] = 0;
    page[1] = DATA_0;
    make_read_only(page);
    expect("gdt.fine", "without", 0, hv_set_gdt(mfns, 8));
    check_equal("gdt.fixed", "its descriptors are fixed up",
                IS_64 ? DATA_3 : DATA_0 | 1ull << 45, page[1]);
    expect("gdt.protect", "and it is not mapped writable", -XEN_EBUSY,
           protect_page(page, PTE_P | PTE_RW));
    expect("gdt.pin", "nor a page table", -XEN_EINVAL, pin(1, page));
    expect("gdt.update", "but descriptors change one by one", 0,
           hv_update_descriptor(maddr_of(&page[3]), DATA_3));
    check_equal("gdt.updated", "there it is", DATA_3, page[3]);
    expect("gdt.update-bad", "unless they are refused", -XEN_EINVAL,
           hv_update_descriptor(maddr_of(&page[3]), TSS));
    check_equal("gdt.not-updated", "there it is still", DATA_3, page[3]);
    expect("gdt.second-writable", "two pages of which one is writable", -XEN_EINVAL,
           hv_set_gdt(mfns, 1024));
    expect("gdt.kept", "the old one stays", -XEN_EBUSY, protect_page(page, PTE_P | PTE_RW));
    expect("gdt.reserved", "Xen's own entries begin at 7168", -XEN_EINVAL, hv_set_gdt(mfns, 7169));
    expect("gdt.none", "none", 0, hv_set_gdt(mfns, 0));
    expect("gdt.free", "and the page is a page", 0, protect_page(page, PTE_P | PTE_RW));
    give_back(page);
    give_back(other);
}

/* Loads a selector; the LDT's pages are looked up at the first use of each. */
static void load_fs(void *selector)
{
    __asm__ volatile("mov %w0, %%fs" : : "r"((u32)(word)selector));
}

static void check_load(const char *id, const char *rule, const char *want, word selector)
{
    struct trap_seen seen;
    char got[24] = "no trap";

    trap_catch(load_fs, (void *)selector, &seen);
    if (seen.trapped)
        trap_describe(got, sizeof(got), seen.regs.vector, seen.regs.error);
    check_text(id, rule, want, got);
    load_fs(0);
}

static long set_ldt(const void *at, word entries)
{
    return extended(MMUEXT_SET_LDT, (word)at, entries);
}

static void test_ldt(void)
{
    u64 *page = fresh_page();

    page[1] = DATA_3;
    page[2] = 0x0000690000000067ull;
    expect("ldt.unaligned", "not at a page", -XEN_EINVAL, set_ldt(page + 1, 4));
    expect("ldt.too-long", "more than a selector can name", -XEN_EINVAL, set_ldt(page, 8193));
    expect("ldt.xens", "in Xen's region", -XEN_EINVAL, set_ldt(xens, 4));
    expect("ldt.fine", "any page will do at first", 0, set_ldt(page, 4));
    check_load("ldt.writable", "but one that is writable is not mapped", "#PF(0)", 0x0f);
    make_read_only(page);
    expect("ldt.again", "the same again", 0, set_ldt(page, 4));
    check_load("ldt.used", "one that is not, is", "no trap", 0x0f);
    expect("ldt.protect", "and is not written then", -XEN_EBUSY,
           protect_page(page, PTE_P | PTE_RW));
    check_load("ldt.absent", "a descriptor that is not present", "#GP(14)", 0x17);
    check_load("ldt.beyond", "one beyond the limit", "#GP(24)", 0x27);
    expect("ldt.none", "none", 0, set_ldt(NULL, 0));
    check_load("ldt.nothing", "leads nowhere", "#GP(c)", 0x0f);
    expect("ldt.free", "and the page is a page", 0, protect_page(page, PTE_P | PTE_RW));
    give_back(page);
}

void test_gdt_and_ldt(void)
{
    test_gdt();
    test_ldt();
}
