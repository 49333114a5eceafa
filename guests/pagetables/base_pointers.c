/*
 * Which tables a vCPU runs on: a top table, whole and its own (MMUEXT_NEW_BASEPTR); for 64-bit
 * guests a second one for user mode (MMUEXT_NEW_USER_BASEPTR; new_guest_cr3 and do_mmuext_op in
 * Xen's arch/x86/mm.c).
 */
#include "pagetables.h"
#include "string.h"

static word running_on(void)
{
    word cr3;

    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    return PT_LEVELS == 3 ? cr3 >> 12 | cr3 << 20 : cr3 >> 12;
}

/* A copy of the tables that we run on, as far down as it must differ. */
static pte_t *copy_of_top(pte_t **xens_l2)
{
    pte_t *top = fresh_page();
    const pte_t *from = pt_walk(0, PT_LEVELS);

    *xens_l2 = NULL;
    memcpy(top, from, PT_LEVELS == 3 ? 32 : PAGE_SIZE);
    if (PT_LEVELS == 3) { /* Xen adds rights that it refuses, and slot 3's L2 serves one L3 only */
        *xens_l2 = fresh_page();
        memcpy(*xens_l2, pt_walk(VIRT_BASE, 2) - pt_index(VIRT_BASE, 2), PAGE_SIZE);
        make_read_only(*xens_l2);
        top[3] = make_pte(virt_to_mfn(*xens_l2), PTE_P);
    }
    make_read_only(top);
    return top;
}

static long use(const void *table)
{
    return extended(MMUEXT_NEW_BASEPTR, virt_to_mfn(table), 0);
}

static void test_kernel_table(void)
{
    const pte_t *first = pt_walk(0, PT_LEVELS);
    pte_t *xens_l2, *second = copy_of_top(&xens_l2), *lower = fresh_table();

    check_true("base.cr3", "cr3 says where we are", running_on() == virt_to_mfn(first));
    expect("base.no-frame", "a frame that does not exist", -XEN_EINVAL,
           extended(MMUEXT_NEW_BASEPTR, NO_FRAME, 0));
    pin(1, lower);
    expect("base.lower", "a table of another level", -XEN_EINVAL, use(lower));
    unpin(lower);
    make_writable(lower);
    expect("base.writable", "a page that the guest can write", -XEN_EINVAL, use(lower));
    check_true("base.still", "all of which changed nothing", running_on() == virt_to_mfn(first));
    expect("base.same", "the one it has", 0, use(first));
    expect("base.copy", "a copy of it, never pinned", 0, use(second));
    check_true("base.moved", "is what it runs on then", running_on() == virt_to_mfn(second));
    expect("base.in-use", "so it is not written", -XEN_EBUSY,
           protect_page(second, PTE_P | PTE_RW));
    expect("base.back", "and back", 0, use(first));
    expect("base.free", "then it may be", 0, protect_page(second, PTE_P | PTE_RW));
    expect("base.foreign", "none runs on a table of nobody's", -XEN_ESRCH,
           extended_foreign(MMUEXT_NEW_BASEPTR, virt_to_mfn(second), 0, NO_DOMAIN));
    give_back(second);
    give_back(lower);
    if (xens_l2)
        give_back(xens_l2);
}

#if IS_64
static void test_user_table(void)
{
    pte_t *table = fresh_table(), *lower = fresh_table();

    expect("user-base.fine", "user mode may have a table of its own", 0,
           extended(MMUEXT_NEW_USER_BASEPTR, virt_to_mfn(table), 0));
    expect("user-base.same", "the same again", 0,
           extended(MMUEXT_NEW_USER_BASEPTR, virt_to_mfn(table), 0));
    expect("user-base.held", "which is not written", -XEN_EBUSY,
           protect_page(table, PTE_P | PTE_RW));
    pin(3, lower);
    expect("user-base.lower", "not one of another level", -XEN_EINVAL,
           extended(MMUEXT_NEW_USER_BASEPTR, virt_to_mfn(lower), 0));
    unpin(lower);
    expect("user-base.no-frame", "nor one that does not exist", -XEN_EINVAL,
           extended(MMUEXT_NEW_USER_BASEPTR, NO_FRAME, 0));
    expect("user-base.kept", "it still has the first", -XEN_EBUSY,
           protect_page(table, PTE_P | PTE_RW));
    expect("user-base.none", "or it has none", 0, extended(MMUEXT_NEW_USER_BASEPTR, 0, 0));
    expect("user-base.free", "and the table is a page again", 0,
           protect_page(table, PTE_P | PTE_RW));
    expect("user-base.kernels", "both modes may share one", 0,
           extended(MMUEXT_NEW_USER_BASEPTR, virt_to_mfn(pt_walk(0, PT_LEVELS)), 0));
    extended(MMUEXT_NEW_USER_BASEPTR, 0, 0);
    give_back(table);
    give_back(lower);
}
#endif

void test_base_pointers(void)
{
    test_kernel_table();
#if IS_64
    test_user_table();
#else
    expect("user-base.one", "32-bit guests have one table for both modes", -XEN_EINVAL,
           extended(MMUEXT_NEW_USER_BASEPTR, virt_to_mfn(pt_walk(0, PT_LEVELS)), 0));
#endif
}
