/* XENMEM_exchange: frames for as many others (memory_exchange in Xen's common/memory.c). */
#include "pagetables.h"
#include "string.h"

static word given[2], wanted[2];

static struct xen_memory_exchange two_pages(void)
{
    struct xen_memory_exchange x = {
        .in_ = { .extent_start = given, .nr_extents = 2, .domid = DOMID_SELF },
        .out = { .extent_start = wanted, .nr_extents = 2, .domid = DOMID_SELF },
    };

    return x;
}

static void refuse(const char *id, const char *rule, long want, struct xen_memory_exchange x)
{
    word done = x.nr_exchanged;

    expect(id, rule, want, hv_memory_op(XENMEM_exchange, &x));
    if (check_selected(id) && x.nr_exchanged != done)
        panic("%s: %lu were exchanged", id, x.nr_exchanged);
}

static void test_refusals(void)
{
    struct xen_memory_exchange x = two_pages();

    x.out.nr_extents = 1;
    refuse("exchange.unequal", "two frames for one", -XEN_EINVAL, x);
    x = two_pages();
    x.nr_exchanged = 3;
    refuse("exchange.overdone", "more done than there are", -XEN_EINVAL, x);
    x = two_pages();
    x.out.domid = NO_DOMAIN;
    refuse("exchange.two-domains", "of one domain for another", -XEN_EINVAL, x);
    x.in_.domid = NO_DOMAIN;
    refuse("exchange.nobodys", "of a domain that does not exist", -XEN_ESRCH, x);
    x = two_pages();
    x.in_.extent_order = x.out.extent_order = 30;
    refuse("exchange.order", "of a size that nobody gets", -XEN_EPERM, x);
    x = two_pages();
    x.in_.extent_start = xens;
    refuse("exchange.at-xen", "a list at Xen's", -XEN_EFAULT, x);
    expect("exchange.unmapped", "an argument that is not mapped", -XEN_EFAULT,
           hv_memory_op(XENMEM_exchange, UNMAPPED));
    given[1] = NO_FRAME;
    x = two_pages();
    expect("exchange.no-frame", "a frame that does not exist", -XEN_EINVAL,
           hv_memory_op(XENMEM_exchange, &x));
    check_equal("exchange.one-done", "after one that was exchanged", 1, x.nr_exchanged);
}

void test_exchange(void)
{
    char *pages[2] = { fresh_page(), fresh_page() };
    struct xen_memory_exchange x = two_pages();

    for (unsigned i = 0; i < 2; i++) {
        memset(pages[i], 0x33, PAGE_SIZE);
        given[i] = virt_to_mfn(pages[i]);
        wanted[i] = virt_to_pfn(pages[i]);
    }
    refuse("exchange.mapped", "frames that are mapped are not given away", -XEN_EINVAL, x);
    set_l1e((word)pages[0], 0);
    set_l1e((word)pages[1], 0);
    expect("exchange.fine", "two frames for two", 0, hv_memory_op(XENMEM_exchange, &x));
    check_equal("exchange.count", "both are done", 2, x.nr_exchanged);
    check_true("exchange.others", "the guest has others", /* the first may come back as second */
               wanted[0] != given[0] && wanted[0] != given[1] && wanted[1] != given[1]);
    for (unsigned i = 0; i < 2; i++) {
        check_equal("exchange.m2p", "with its numbers", virt_to_pfn(pages[i]),
                    MACHINE_TO_PHYS[wanted[i]]);
        set_pfn_to_mfn(virt_to_pfn(pages[i]), wanted[i]);
    }
    expect("exchange.gone", "and not those", -XEN_EBUSY,
           set_l1e((word)pages[0], make_pte(given[1], PTE_P)));
    given[0] = wanted[0];
    wanted[0] = virt_to_pfn(pages[0]);
    test_refusals();
    set_pfn_to_mfn(virt_to_pfn(pages[0]), wanted[0]);
    for (unsigned i = 0; i < 2; i++) {
        make_writable(pages[i]);
        give_back(pages[i]);
    }
}
