/* What a leaf may map (get_page_from_l1e in Xen's arch/x86/mm.c). */
#include "pagetables.h"

static void test_tables_in_use(const pte_t *leaf)
{
    pte_t *table = fresh_table();
    word mfn = virt_to_mfn(table);

    expect("leaf.pin", "a table, in use by a pin alone", 0, pin(1, table));
    check_accepted("leaf.table-read-only", "may be mapped", leaf_flags(PTE_P), leaf,
                   make_pte(mfn, PTE_P));
    check_refused("leaf.table-writable", "but not writable", -XEN_EBUSY, leaf,
                  make_pte(mfn, PTE_P | PTE_RW));
    check_refused("leaf.top-writable", "nor may the table that the vCPU runs on", -XEN_EBUSY, leaf,
                  make_pte(virt_to_mfn(pt_walk(SANDBOX, PT_LEVELS)), PTE_P | PTE_RW));
    check_refused("leaf.itself-writable", "nor the leaf's own table", -XEN_EBUSY, leaf,
                  make_pte(virt_to_mfn(leaf), PTE_P | PTE_RW));
    check_accepted("leaf.itself", "which may be mapped read-only", leaf_flags(PTE_P | PTE_A), leaf,
                   make_pte(virt_to_mfn(leaf), PTE_P | PTE_A));
    unpin(table);
    check_accepted("leaf.unpinned", "unpinned it is a page like others", leaf_flags(PTE_RIGHTS),
                   leaf, make_pte(mfn, PTE_RIGHTS));
    give_back(table);
}

static void test_others_frames(const pte_t *leaf)
{
    word of_xen[1] = { 0 };
    struct xen_machphys_mfn_list list = { .max_extents = 1, .extent_start = of_xen };

    hv_memory_op(XENMEM_machphys_mfn_list, &list);
    check_refused("leaf.m2p-writable", "the m2p's frames are Xen's", -XEN_EBUSY, leaf,
                  make_pte(of_xen[0], PTE_P | PTE_RW));
    check_refused("leaf.m2p", "even to be read", -XEN_EBUSY, leaf, make_pte(of_xen[0], PTE_P));
    if (PT_LEVELS > 2)
        check_refused("leaf.no-frame-at-all", "a frame number of all ones", -XEN_EINVAL, leaf,
                      PTE_FRAME | PTE_P);
    if (is_dom0)
        check_accepted("leaf.beyond", "memory beyond the machine's is the hardware domain's",
                       leaf_flags(PTE_P | PTE_PWT | PTE_PCD), leaf, make_pte(NO_FRAME, PTE_P));
    else
        check_refused("leaf.beyond", "memory beyond the machine's is the hardware domain's",
                      -XEN_EPERM, leaf, make_pte(NO_FRAME, PTE_P));
}

/* Changing rights alone, where the frame keeps its references, and where it does not. */
static void test_changes(const pte_t *leaf)
{
    void *page = fresh_page();
    word mfn = virt_to_mfn(page);

    set_entry(leaf, make_pte(mfn, PTE_P | PTE_RW));
    check_accepted("leaf.same", "the same again", leaf_flags(PTE_P | PTE_RW), leaf,
                   make_pte(mfn, PTE_P | PTE_RW));
    check_accepted("leaf.less", "read-only", leaf_flags(PTE_P), leaf, make_pte(mfn, PTE_P));
    check_accepted("leaf.other-bits", "bits that concern only the guest",
                   leaf_flags(PTE_P | PTE_RW | PTE_US | PTE_AVAIL | PTE_A), leaf,
                   make_pte(mfn, PTE_P | PTE_RW | PTE_US | PTE_AVAIL | PTE_A));
    make_read_only(page);
    expect("leaf.still-writable", "a page with one writable mapping left is no table", -XEN_EINVAL,
           pin(1, page));
    set_entry(leaf, make_pte(mfn, PTE_P));
    expect("leaf.read-only", "with none it may be one", 0, pin(1, page));
    check_refused("leaf.more", "and is not mapped writable then", -XEN_EBUSY, leaf,
                  make_pte(mfn, PTE_P | PTE_RW));
    unpin(page);
    set_entry(leaf, 0);
    give_back(page);
}

void test_leaves(void)
{
    const pte_t *leaf = free_entry(1);

    test_tables_in_use(leaf);
    test_others_frames(leaf);
    test_changes(leaf);
}
