/*
 * Where arguments stand: a pointer into Xen's region, to nothing, or over an end is -EFAULT, and
 * nothing was done. A guest can read the m2p, but cannot make Xen read or write it for it.
 */
#include "pagetables.h"
#include "string.h"

static void test_requests(void)
{
    u32 done = 77;

    expect("pointer.updates", "mmu_update at Xen's", -XEN_EFAULT, hv_mmu_update(xens, 1, &done));
    check_equal("pointer.updates-done", "nobody is told a count", 77, done);
    expect("pointer.updates-nowhere", "or nowhere", -XEN_EFAULT,
           hv_mmu_update(UNMAPPED, 1, &done));
    check_equal("pointer.updates-none", "of which none were done", 0, done);
    expect("pointer.operations", "mmuext_op at Xen's", -XEN_EFAULT, hv_mmuext_op(xens, 1, NULL));
    expect("pointer.operations-nowhere", "or nowhere", -XEN_EFAULT,
           hv_mmuext_op(UNMAPPED, 1, NULL));
    expect("pointer.gdt", "a list of a GDT's frames at Xen's", -XEN_EFAULT, hv_set_gdt(xens, 8));
    expect("pointer.traps", "a trap table at Xen's", -XEN_EFAULT, hv_set_trap_table(xens));
    expect("pointer.version", "an answer into Xen's", -XEN_EFAULT,
           hv_xen_version(XENVER_extraversion, xens));
}

/* The second of two requests lies on a page that is not there. */
static void test_over_the_end(void)
{
    char *first = (char *)SANDBOX + 8 * PAGE_SIZE;
    void *page = fresh_page(), *target = fresh_page();
    const pte_t *leaf = free_entry(1);
    struct mmu_update *requests;
    u32 done = 77;

    set_l1e((word)first, make_pte(virt_to_mfn(page), PTE_RIGHTS));
    requests = (void *)(first + PAGE_SIZE - sizeof(*requests));
    requests[0] = (struct mmu_update){ .ptr = maddr_of(leaf),
                                       .val = make_pte(virt_to_mfn(target), PTE_P) };
    expect("pointer.end", "a list over the end of what is mapped", -XEN_EFAULT,
           hv_mmu_update(requests, 2, &done));
    check_equal("pointer.end-done", "is done as far as it can be read", 1, done);
    check_true("pointer.end-entry", "and there it is", pte_mfn(*leaf) == virt_to_mfn(target));
    set_entry(leaf, 0);
    done = 77;
    requests = (void *)(first + PAGE_SIZE - sizeof(*requests) / 2);
    expect("pointer.split", "a request over that end", -XEN_EFAULT,
           hv_mmu_update(requests, 1, &done));
    check_equal("pointer.split-done", "is not done", 0, done);
    set_l1e((word)first, 0);
    give_back(page);
    give_back(target);
}

/* An answer for which there is no writable place. */
static void test_read_only(void)
{
    word *page = fresh_page();
    struct xen_machphys_mapping *mapping = (void *)page;

    make_read_only(page);
    expect("pointer.read-only", "an answer into a page that the guest cannot write", -XEN_EFAULT,
           hv_memory_op(XENMEM_machphys_mapping, mapping));
    check_equal("pointer.unwritten", "which is as it was", 0, page[0]);
    give_back(page);
}

void test_pointers(void)
{
    test_requests();
    test_over_the_end();
    test_read_only();
}
