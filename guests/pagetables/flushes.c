/* Flushes by mmuext_op, and its operations that flush nothing (do_mmuext_op). */
#include "pagetables.h"

#define AT ((volatile word *)(SANDBOX + 7 * PAGE_SIZE))

static void *a, *b;

/* Enters another page by mmu_update, which flushes nothing; then the flush; is it seen? */
static void check_flush(const char *id, const char *rule, u32 cmd, word arg1, const void *arg2)
{
    void *other = b;

    set_entry(pt_walk((word)AT, 1), make_pte(virt_to_mfn(other), PTE_RIGHTS));
    expect(id, rule, 0, extended(cmd, arg1, (word)arg2));
    if (check_selected(id) && *AT != *(word *)other)
        panic("%s: the old page is still seen", id);
    b = a;
    a = other;
}

static void test_all_flushes(void)
{
    static word everyone = ~(word)0;
    const void *nowhere = UNMAPPED;

    a = fresh_page();
    b = fresh_page();
    *(word *)a = 'a';
    *(word *)b = 'b';
    set_entry(pt_walk((word)AT, 1), make_pte(virt_to_mfn(a), PTE_RIGHTS));
    (void)*AT;
    check_flush("flush.local", "TLB_FLUSH_LOCAL", MMUEXT_TLB_FLUSH_LOCAL, 0, NULL);
    check_flush("flush.page", "INVLPG_LOCAL", MMUEXT_INVLPG_LOCAL, (word)AT, NULL);
    check_flush("flush.all", "TLB_FLUSH_ALL", MMUEXT_TLB_FLUSH_ALL, 0, NULL);
    check_flush("flush.page-all", "INVLPG_ALL", MMUEXT_INVLPG_ALL, (word)AT, NULL);
    check_flush("flush.multi", "TLB_FLUSH_MULTI, of a set of vCPUs", MMUEXT_TLB_FLUSH_MULTI, 0,
                &everyone);
    check_flush("flush.page-multi", "INVLPG_MULTI", MMUEXT_INVLPG_MULTI, (word)AT, &everyone);
    expect("flush.bad-set", "a set that is not there", -XEN_EINVAL,
           extended(MMUEXT_TLB_FLUSH_MULTI, 0, (word)nowhere));
    expect("flush.bad-page-set", "for a page", -XEN_EINVAL,
           extended(MMUEXT_INVLPG_MULTI, (word)AT, (word)nowhere));
    expect("flush.xens", "a page of Xen's is passed over", 0,
           extended(MMUEXT_INVLPG_LOCAL, (word)xens, 0));
    set_entry(pt_walk((word)AT, 1), 0);
    extended(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
    give_back(a);
    give_back(b);
}

void test_flushes(void)
{
    test_all_flushes();
    expect_by_rank("cache.flush", "caches are for those with hardware", -XEN_EACCES, 0,
                   extended(MMUEXT_FLUSH_CACHE, 0, 0));
    expect_by_rank("cache.flush-global", "on all processors too", -XEN_EINVAL, 0,
                   extended(MMUEXT_FLUSH_CACHE_GLOBAL, 0, 0));
    expect("super.mark", "superpages are not for PV guests", -XEN_EOPNOTSUPP,
           extended(MMUEXT_MARK_SUPER, 0, 0));
    expect("super.unmark", "nor were they", -XEN_EOPNOTSUPP,
           extended(MMUEXT_UNMARK_SUPER, 0, 0));
    expect("extended.14", "a gap in the numbers", -XEN_ENOSYS, extended(14, 0, 0));
    expect("extended.21", "the first behind them", -XEN_ENOSYS, extended(21, 0, 0));
    expect("extended.foreign", "what concerns the vCPU is not for other domains", -XEN_ESRCH,
           extended_foreign(MMUEXT_TLB_FLUSH_LOCAL, 0, 0, NO_DOMAIN));
    expect("extended.io", "nor for the owner of devices", -XEN_EPERM,
           extended_foreign(MMUEXT_TLB_FLUSH_LOCAL, 0, 0, DOMID_IO));
    expect_by_privilege("extended.io-pin", "which has no tables", -XEN_EPERM, -XEN_EINVAL,
                   extended_foreign(MMUEXT_PIN_L1_TABLE, virt_to_mfn(free_entry(1)), 0, DOMID_IO));
    expect("extended.xen", "nor for Xen itself", -XEN_EPERM,
           extended_foreign(MMUEXT_TLB_FLUSH_LOCAL, 0, 0, DOMID_XEN));
    expect_by_privilege("extended.xen-clear", "whose frames nobody clears", -XEN_EPERM, -XEN_EINVAL,
                   extended_foreign(MMUEXT_CLEAR_PAGE, virt_to_mfn(free_entry(1)), 0, DOMID_XEN));
}
