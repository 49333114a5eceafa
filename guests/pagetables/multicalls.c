/* Many calls in one: each has its own result (Xen's common/multicall.c). */
#include "pagetables.h"

#define CALL(nr, ...)                                                                              \
    (struct multicall_entry){ .op = __HYPERVISOR_##nr, .result = 77, .args = { __VA_ARGS__ } }

#if IS_64
#define MAP(vaddr, l1e) CALL(update_va_mapping, vaddr, l1e, UVMF_INVLPG)
#else
#define MAP(vaddr, l1e) CALL(update_va_mapping, vaddr, (word)(l1e), (u64)(l1e) >> 32, UVMF_INVLPG)
#endif

void test_multicalls(void)
{
    void *page = fresh_page();
    pte_t fine = make_pte(virt_to_mfn(page), PTE_RIGHTS);
    pte_t table = make_pte(virt_to_mfn(free_entry(1)), PTE_RIGHTS);
    struct multicall_entry calls[] = {
        MAP(SANDBOX, fine),
        MAP(SANDBOX + PAGE_SIZE, table),
        CALL(multicall, 0),
        { .op = 63, .result = 77 },
        MAP(SANDBOX + PAGE_SIZE, fine),
    };

    *(word *)page = 'm';
    expect("multi.all", "a list in which some calls are refused", 0,
           hv_multicall(calls, ARRAY_SIZE(calls)));
    expect("multi.first", "the first succeeds", 0, (long)calls[0].result);
    expect("multi.second", "the second is refused", -XEN_EBUSY, (long)calls[1].result);
    expect("multi.nested", "no list within a list", -XEN_EINVAL, (long)calls[2].result);
    expect("multi.unknown", "nor a call that does not exist", -XEN_ENOSYS, (long)calls[3].result);
    expect("multi.last", "and the last is done all the same", 0, (long)calls[4].result);
    check_equal("multi.seen", "its page is there", 'm', *(volatile word *)(SANDBOX + PAGE_SIZE));
    expect("multi.none", "none", 0, hv_multicall(calls, 0));
    expect("multi.unmapped", "a list that is not mapped", -XEN_EFAULT, hv_multicall(UNMAPPED, 1));
    expect("multi.at-xen", "or is Xen's", -XEN_EFAULT, hv_multicall(xens, 1));
    calls[0] = MAP(SANDBOX, 0);
    calls[1] = MAP(SANDBOX + PAGE_SIZE, 0);
    hv_multicall(calls, 2);
    give_back(page);
}
