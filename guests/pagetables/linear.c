/*
 * Linear page tables: an entry may name a table of its own level, so that a stretch of addresses
 * shows page tables. Never writable, and never in a circle (get_l2_linear_pagetable and its
 * brothers in Xen's arch/x86/mm.c). A leaf table has no such entries, nor has PAE's third level.
 */
#include "console.h"
#include "pagetables.h"

static void check_level(int level)
{
    const pte_t *entry = free_entry(level);
    word own = virt_to_mfn(entry);
    pte_t *a = fresh_table(), *b = fresh_table();
    pte_t flags = table_entry_flags(level, PTE_P);
    char id[24];

#define ID(what) (format(id, sizeof(id), "linear%d." what, level), id)
    check_accepted(ID("itself"), "an entry may name its own table", flags, entry,
                   make_pte(own, PTE_P));
    check_refused(ID("writable"), "but not writable", -XEN_EINVAL, entry,
                  make_pte(own, PTE_P | PTE_RW));
    expect(ID("pin-a"), "another of the same level", 0, pin(level, a));
    expect(ID("pin-b"), "and a third", 0, pin(level, b));
    check_refused(ID("other-writable"), "is not named writable", -XEN_EINVAL, entry,
                  make_pte(virt_to_mfn(a), PTE_P | PTE_RW));
    check_accepted(ID("other"), "but may be named", flags, entry, make_pte(virt_to_mfn(a), PTE_P));
    set_entry(entry, make_pte(virt_to_mfn(a), PTE_P));
    check_refused(ID("chain"), "by one that nobody else names so", -XEN_EINVAL, a,
                  make_pte(virt_to_mfn(b), PTE_P));
    check_refused(ID("circle"), "so there is no circle", -XEN_EINVAL, a, make_pte(own, PTE_P));
    check_accepted(ID("twice"), "one table may name two", flags, entry + 1,
                   make_pte(virt_to_mfn(b), PTE_P));
    set_entry(entry, 0);
    check_accepted(ID("again"), "when that is over, the other may name", flags, a,
                   make_pte(virt_to_mfn(b), PTE_P));
    expect(ID("unpin-a"), "and both can be let go", 0, unpin(a));
    expect(ID("unpin-b"), "and both can be let go", 0, unpin(b));
#undef ID
    give_back(a);
    give_back(b);
}

/* What the stretch shows: the walk is one level short, so the leaf it finds is a table's entry. */
static void check_window(void)
{
    const pte_t *entry = free_entry(2);
    word base = (SANDBOX >> (PAGE_SHIFT + PT_BITS) << (PAGE_SHIFT + PT_BITS)) +
                ((word)1 << (PAGE_SHIFT + PT_BITS));
    const pte_t *window = (const pte_t *)base;

    set_entry(entry, make_pte(virt_to_mfn(entry), PTE_P));
    check_equal("linear.window", "the stretch shows the leaf tables, each as a page", 0,
                (window[(pt_index(SANDBOX, 2) * ENTRIES + 9)] != pt_walk(SANDBOX, 1)[9]));
    set_entry(entry, 0);
    extended(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
}

void test_linear(void)
{
    check_level(2);
#if IS_64
    check_level(3);
    check_level(4);
#elif PT_LEVELS == 3
    check_refused("linear3.itself", "PAE's third level knows none", -XEN_EINVAL, free_entry(3),
                  make_pte(virt_to_mfn(free_entry(3)), PTE_P));
#endif
    check_window();
}
