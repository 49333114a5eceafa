/*
 * memory_op on extents: a domain gives frames back and gets others, which is what a balloon driver
 * does (Xen's common/memory.c). The answer is how many extents were done, never an error.
 */
#include "pagetables.h"
#include "string.h"

#define NR 4

static word list[NR];
static char *balloon[NR];

static struct xen_memory_reservation extents(word count)
{
    return (struct xen_memory_reservation){ .extent_start = list, .nr_extents = count,
                                            .domid = DOMID_SELF };
}

static long on_extents(int cmd, struct xen_memory_reservation reservation)
{
    return hv_memory_op(cmd, &reservation);
}

static long reservation_now(void)
{
    u16 domid = DOMID_SELF;

    return hv_memory_op(XENMEM_current_reservation, &domid);
}

static void test_deflate(long before)
{
    for (unsigned i = 0; i < NR; i++) {
        balloon[i] = fresh_page();
        memset(balloon[i], 0x77, PAGE_SIZE);
        list[i] = virt_to_mfn(balloon[i]);
        set_l1e((word)balloon[i], 0);
    }
    expect("balloon.down", "frames that nothing maps are given back", NR,
           on_extents(XENMEM_decrease_reservation, extents(NR)));
    expect("balloon.fewer", "and no longer counted", NR, before - reservation_now());
    expect("balloon.gone", "they are not the guest's any more", -XEN_EBUSY,
           set_l1e((word)balloon[0], make_pte(list[0], PTE_P)));
    expect("balloon.twice", "nor given back again", 0,
           on_extents(XENMEM_decrease_reservation, extents(NR)));
}

static void test_inflate(long before)
{
    unsigned dirty = 0;

    for (unsigned i = 0; i < NR; i++)
        list[i] = virt_to_pfn(balloon[i]);
    expect("balloon.up", "others are given for the same pseudo-physical numbers", NR,
           on_extents(XENMEM_populate_physmap, extents(NR)));
    expect("balloon.as-many", "as many as before", 0, before - reservation_now());
    for (unsigned i = 0; i < NR; i++) {
        check_equal("balloon.m2p", "with the guest's number in the m2p", virt_to_pfn(balloon[i]),
                    MACHINE_TO_PHYS[list[i]]);
        set_pfn_to_mfn(virt_to_pfn(balloon[i]), list[i]);
        make_writable(balloon[i]);
        dirty += balloon[i][0] != 0 || memcmp(balloon[i], balloon[i] + 1, PAGE_SIZE - 1);
        give_back(balloon[i]);
    }
    if (is_dom0)
        check_skip("balloon.scrubbed", "none of them with old contents",
                   "Xen trusts living domains");
    else
        check_equal("balloon.scrubbed", "none of them with old contents", 0, dirty);
}

/* What something still names is gone from the reservation, but not free. */
static void test_in_use(long before)
{
    char *page = fresh_page();
    word mfn = virt_to_mfn(page);

    list[0] = mfn;
    *page = 1;
    expect("balloon.mapped", "a frame that is still mapped is given back too", 1,
           on_extents(XENMEM_decrease_reservation, extents(1)));
    check_equal("balloon.still-there", "but stays as it is while it is", 1, *page);
    check_equal("balloon.m2p-stays", "and keeps its number", virt_to_pfn(page),
                MACHINE_TO_PHYS[mfn]);
    expect("balloon.mapped-twice", "it is given back once, which is no error", 1,
           on_extents(XENMEM_decrease_reservation, extents(1)));
    set_l1e((word)page, 0);
    expect("balloon.m2p-gone", "without a mapping it has none", -1, (long)MACHINE_TO_PHYS[mfn]);
    expect("balloon.counted", "when nothing names it, it is counted no more", 1,
           before - reservation_now());
    list[0] = virt_to_pfn(page);
    on_extents(XENMEM_populate_physmap, extents(1));
    set_pfn_to_mfn(virt_to_pfn(page), list[0]);
    make_writable(page);
    give_back(page);
}

static void test_pinned(void)
{
    pte_t *table = fresh_table();

    pin(1, table);
    list[0] = virt_to_mfn(table);
    set_l1e((word)table, 0);
    expect("balloon.pinned", "a pinned frame is given back", 1,
           on_extents(XENMEM_decrease_reservation, extents(1)));
    expect("balloon.unpin", "and stays until it is let go", 0,
           extended(MMUEXT_UNPIN_TABLE, list[0], 0));
    expect("balloon.unpinned", "then it is nobody's", -XEN_EINVAL,
           extended(MMUEXT_PIN_L1_TABLE, list[0], 0));
    list[0] = virt_to_pfn(table);
    on_extents(XENMEM_populate_physmap, extents(1));
    set_pfn_to_mfn(virt_to_pfn(table), list[0]);
    make_writable(table);
    give_back(table);
}

static void test_refusals(void)
{
    struct xen_memory_reservation bad = extents(1);

    list[0] = NO_FRAME;
    expect("extents.no-frame", "a frame that does not exist", 0,
           on_extents(XENMEM_decrease_reservation, extents(1)));
    list[0] = virt_to_pfn(list);
    expect("extents.none", "no extents", 0, on_extents(XENMEM_populate_physmap, extents(0)));
    bad.domid = NO_DOMAIN;
    expect("extents.nobody", "of no domain", 0, on_extents(XENMEM_populate_physmap, bad));
    bad = extents(1);
    bad.extent_order = 20;
    expect("extents.order", "too large ones", 0, on_extents(XENMEM_populate_physmap, bad));
    bad = extents(1);
    bad.extent_start = xens;
    expect("extents.list-at-xen", "a list at Xen's", 0, on_extents(XENMEM_populate_physmap, bad));
    expect("extents.unmapped", "an argument that is not mapped", 0,
           hv_memory_op(XENMEM_populate_physmap, UNMAPPED));
    expect("extents.at-xen", "or is Xen's", 0, hv_memory_op(XENMEM_decrease_reservation, xens));
}

void test_reservation(void)
{
    long before = reservation_now();

    test_deflate(before);
    test_inflate(before);
    test_in_use(before);
    test_pinned();
    test_refusals();
    expect("balloon.total", "in the end there are as many as at first", 0,
           before - reservation_now());
}
