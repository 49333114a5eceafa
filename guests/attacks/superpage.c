/*
 * Way out: an entry of the second level with the PSE bit maps two megabytes at once, whoever owns
 * them. All that is needed is a frame of ours at the right place, empty enough to pass for a table.
 * Rule: PV guests have no superpages; the bit is not allowed (L2_DISALLOW_MASK).
 * Check: hypervisor.mm.leaf_tables.LeafTables._refuse_bits
 * Widths: x86_32p x86_64
 */
#include "attacks.h"

#define PTE_PSE ((pte_t)1 << 7)
#define SUPERPAGE ((word)512)

/* A frame of ours that two megabytes begin with, mapped at own[0], read-only. */
static word first_of_a_superpage(void)
{
    const word *p2m = (const word *)start_of_day->mfn_list;
    word pfn = start_of_day->nr_pages;

    while (pfn-- > 0)
        if (p2m[pfn] % SUPERPAGE == 0 && !map(pfn_to_virt(pfn), p2m[pfn], 0) &&
            !map(own[0], p2m[pfn], WRITABLE))
            return p2m[pfn];
    return 0;
}

ATTACK(superpage, "-EINVAL")
{
    word mfn = first_of_a_superpage(), value;

    if (!mfn)
        return outcome("no such frame");
    make_window();
    if (refused(map(own[0], mfn, READABLE)) ||
        refused(update(entry_maddr(pt_walk(WINDOW, 2)), make_pte(mfn, WRITABLE | PTE_PSE))))
        return;
    if (peek((const void *)(WINDOW + PAGE_SIZE), &value))
        escaped("two megabytes of the machine's memory");
}
