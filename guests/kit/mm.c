/*
 * Page tables by request.
 *
 * The tables that Xen built can be read in place and are mapped read-only. To add one: fill a page,
 * make its own mapping read-only (Xen refuses a table that can still be written), then enter it
 * into a table above it with mmu_update, where Xen validates it.
 */
#include "mm.h"

#include "console.h"
#include "hypercall.h"
#include "report.h"
#include "string.h"

#define NR_SPARE_PAGES 16

static const struct start_info *start_info;
static char spare_pages[NR_SPARE_PAGES][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static unsigned nr_pages_used;

void mm_init(const struct start_info *si)
{
    start_info = si;
}

word pfn_to_mfn(word pfn)
{
    return ((const word *)start_info->mfn_list)[pfn];
}

void set_pfn_to_mfn(word pfn, word mfn)
{
    ((word *)start_info->mfn_list)[pfn] = mfn;
}

word virt_to_mfn(const void *vaddr)
{
    return pfn_to_mfn(virt_to_pfn(vaddr));
}

static const pte_t *table_of(pte_t entry)
{
    return pfn_to_virt(MACHINE_TO_PHYS[pte_mfn(entry)]);
}

const pte_t *pt_walk(word vaddr, int level)
{
    const pte_t *table = (const pte_t *)start_info->pt_base;

    for (int at = PT_LEVELS; at > level; at--) {
        pte_t entry = table[pt_index(vaddr, at)];

        if (!(entry & PTE_P))
            return NULL;
        table = table_of(entry);
    }
    return &table[pt_index(vaddr, level)];
}

long set_l1e(word vaddr, pte_t l1e)
{
    return hv_update_va_mapping(vaddr, l1e, UVMF_INVLPG);
}

long protect_page(const void *page, pte_t flags)
{
    return set_l1e((word)page, make_pte(virt_to_mfn(page), flags));
}

void map_foreign_page(void *page, word mfn)
{
    long err = set_l1e((word)page, make_pte(mfn, PTE_P | PTE_RW | PTE_A | PTE_D));

    if (err)
        panic("mapping frame %lx at %p: error %ld", mfn, page, err);
}

void *alloc_page(void)
{
    if (nr_pages_used == NR_SPARE_PAGES)
        panic("alloc_page: all %d pages are used", NR_SPARE_PAGES);
    return spare_pages[nr_pages_used++];
}

/* Machine address of an entry that we can read at a virtual address. */
static u64 entry_maddr(const pte_t *entry)
{
    return ((u64)virt_to_mfn(entry) << PAGE_SHIFT) | ((word)entry & (PAGE_SIZE - 1));
}

static void update_entry(const pte_t *entry, pte_t value)
{
    struct mmu_update update = { .ptr = entry_maddr(entry) | MMU_NORMAL_PT_UPDATE, .val = value };
    long err = hv_mmu_update(&update, 1, NULL);

    if (err)
        panic("mmu_update of %p: error %ld", (const void *)entry, err);
}

/* An empty page, already read-only, fit to become a page table. */
static pte_t *alloc_table(void)
{
    pte_t *table = alloc_page();
    long err = protect_page(table, PTE_P | PTE_A);

    if (err)
        panic("making %p read-only: error %ld", (void *)table, err);
    return table;
}

/* PAE's top entries have no rights of their own: all but P and a few reserved bits must be 0. */
static pte_t table_flags(int level)
{
    return PT_LEVELS == 3 && level == 3 ? PTE_P : PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D;
}

void map_page(word vaddr, word mfn, pte_t flags)
{
    for (int level = PT_LEVELS; level > 1; level--) {
        const pte_t *entry = pt_walk(vaddr, level);

        if (!(*entry & PTE_P))
            update_entry(entry, make_pte(virt_to_mfn(alloc_table()), table_flags(level)));
    }
    update_entry(pt_walk(vaddr, 1), make_pte(mfn, flags));
}

#if IS_64
void make_user_table(word vaddr)
{
    pte_t *top = alloc_page();
    struct mmuext_op ops[2];
    long err;

    top[pt_index(vaddr, PT_LEVELS)] = *pt_walk(vaddr, PT_LEVELS);
    err = protect_page(top, PTE_P | PTE_A);
    ops[0] = (struct mmuext_op){ .cmd = MMUEXT_PIN_L4_TABLE, .arg1.mfn = virt_to_mfn(top) };
    ops[1] = (struct mmuext_op){ .cmd = MMUEXT_NEW_USER_BASEPTR, .arg1.mfn = virt_to_mfn(top) };
    if (!err)
        err = hv_mmuext_op(ops, 2, NULL);
    if (err)
        panic("user page table: error %ld", err);
}
#endif
