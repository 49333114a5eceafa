/*
 * update_va_mapping: an entry by the address that it maps, and a flush with it
 * (do_update_va_mapping in Xen's arch/x86/mm.c).
 */
#include "pagetables.h"
#include "string.h"

#define AT ((volatile word *)(SANDBOX + 5 * PAGE_SIZE))

static void *a, *b;

static long map(const void *page, word flags)
{
    return hv_update_va_mapping((word)AT, make_pte(virt_to_mfn(page), PTE_RIGHTS), flags);
}

static void test_flush_modes(void)
{
    static word everyone = ~(word)0;

    expect("va.none", "no flush: nothing was there before", 0, map(a, UVMF_NONE));
    check_equal("va.sees-a", "the page is seen", 'a', *AT);
    expect("va.invlpg", "with a flush of the page, here", 0, map(b, UVMF_INVLPG | UVMF_LOCAL));
    check_equal("va.sees-b", "another page is seen at once", 'b', *AT);
    expect("va.invlpg-all", "or on all vCPUs", 0, map(a, UVMF_INVLPG | UVMF_ALL));
    check_equal("va.sees-a-again", "the same", 'a', *AT);
    expect("va.invlpg-some", "or on some", 0, map(b, UVMF_INVLPG | (word)&everyone));
    check_equal("va.sees-b-again", "the same", 'b', *AT);
    expect("va.flush", "with a flush of everything", 0, map(a, UVMF_TLB_FLUSH | UVMF_LOCAL));
    check_equal("va.flush-sees", "the same", 'a', *AT);
    expect("va.flush-all", "or on all vCPUs", 0, map(b, UVMF_TLB_FLUSH | UVMF_ALL));
    check_equal("va.flush-all-sees", "the same", 'b', *AT);
    expect("va.flush-some", "or on some", 0, map(a, UVMF_TLB_FLUSH | (word)&everyone));
    check_equal("va.flush-some-sees", "the same", 'a', *AT);
    expect("va.mode-3", "a mode that does not exist flushes nothing", 0, map(a, 3));
    expect("va.bad-set", "a set of vCPUs that is not there", -XEN_EFAULT,
           map(b, UVMF_INVLPG | 0x1000));
    check_true("va.bad-set-done", "is looked for when the entry is changed",
               pte_mfn(*pt_walk((word)AT, 1)) == virt_to_mfn(b));
    map(a, UVMF_INVLPG);
}

static void check_refusal(const char *id, const char *rule, long want, word vaddr, pte_t l1e)
{
    pte_t before = *pt_walk((word)AT, 1);

    expect(id, rule, want, hv_update_va_mapping(vaddr, l1e, UVMF_INVLPG));
    if (*pt_walk((word)AT, 1) != before)
        panic("%s changed an entry", id);
}

static void test_refusals(void)
{
    const pte_t *leaf = pt_walk((word)AT, 1);
    pte_t fine = make_pte(virt_to_mfn(a), PTE_P);

    check_refusal("va.table", "a table writable", -XEN_EBUSY, (word)AT,
                  make_pte(virt_to_mfn(leaf), PTE_P | PTE_RW));
    expect_by_rank("va.bits", "uncached memory is for domains with hardware", -XEN_EINVAL, 0,
                   hv_update_va_mapping((word)AT, fine | PTE_PCD, UVMF_INVLPG));
    check_refusal("va.no-table", "an address without a leaf table", -XEN_EINVAL,
                  SANDBOX + 0x10000000, fine);
    check_refusal("va.xens", "an address of Xen's", -XEN_EINVAL, (word)xens, fine);
#if IS_64
    check_refusal("va.xens-last", "to its last", -XEN_EINVAL, 0xffff87fffffff000, fine);
    check_refusal("va.not-canonical", "one that there cannot be", -XEN_EINVAL, (word)1 << 60, fine);
#else
    check_refusal("va.xens-last", "to its last", -XEN_EINVAL, 0xfffff000, fine);
#endif
    expect("va.clear", "an entry that is not present", 0,
           hv_update_va_mapping((word)AT, 0, UVMF_INVLPG));
}

static void test_other_domains(void)
{
    pte_t l1e = make_pte(virt_to_mfn(a), PTE_P);

    expect("va.other-self", "the other domain may be oneself by DOMID_SELF", 0,
           hv_update_va_mapping_otherdomain((word)AT, l1e, UVMF_INVLPG, DOMID_SELF));
    expect("va.other-none", "but not one that does not exist", -XEN_ESRCH,
           hv_update_va_mapping_otherdomain((word)AT, 0, UVMF_INVLPG, NO_DOMAIN));
    expect("va.other-number", "nor oneself by number", -XEN_ESRCH,
           hv_update_va_mapping_otherdomain((word)AT, 0, UVMF_INVLPG, is_dom0 ? 0 : 1));
    expect_by_privilege("va.other-xen", "a frame of ours is none of Xen's", -XEN_EPERM, -XEN_EBUSY,
                   hv_update_va_mapping_otherdomain((word)AT, l1e | PTE_RW, 0, DOMID_XEN));
    check_true("va.other-kept", "and nothing was changed by those",
               pte_mfn(*pt_walk((word)AT, 1)) == virt_to_mfn(a));
    hv_update_va_mapping((word)AT, 0, UVMF_INVLPG);
}

void test_va_mappings(void)
{
    a = fresh_page();
    b = fresh_page();
    *(word *)a = 'a';
    *(word *)b = 'b';
    test_flush_modes();
    test_refusals();
    test_other_domains();
    give_back(a);
    give_back(b);
}
