/*
 * Address spaces.
 *
 * Tables are filled while they are ordinary memory, which costs nothing. Then each is made
 * read-only in the kernel's own mapping, for Xen refuses a page table that anybody can write, and
 * the root is pinned: Xen goes through all of them once and checks every entry. From then on every
 * change is a request.
 */
#include "demand.h"

#include "hypercall.h"
#include "report.h"
#include "string.h"

#define TABLE_FLAGS (PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D)

#if IS_64
#define PIN_ROOT MMUEXT_PIN_L4_TABLE
#elif defined(WIDTH_X86_32P)
#define PIN_ROOT MMUEXT_PIN_L3_TABLE
#else
#define PIN_ROOT MMUEXT_PIN_L2_TABLE
#endif

static struct space first;

void called(long err, const char *what)
{
    cost.calls++;
    if (err)
        panic("%s: error %ld", what, err);
}

static pte_t *new_table(struct space *space)
{
    pte_t *table = page_alloc();

    space->tables[space->nr_tables++] = table;
    return table;
}

static pte_t entry_for(const pte_t *table, int level)
{
    /* PAE's top entries have no rights of their own. */
    return make_pte(virt_to_mfn(table), PT_LEVELS == 3 && level == 3 ? PTE_P : TABLE_FLAGS);
}

/* The kernel's tables below the root are shared by all address spaces. */
static void share_kernel(struct space *space)
{
    unsigned slot = pt_index(VIRT_BASE, PT_LEVELS);

#if defined(WIDTH_X86_32P)
    /* The L2 with Xen's slots belongs to one L3 alone, so each space has a copy of it. Its last
     * slots are Xen's to fill. */
    const pte_t *kernel_l2 = pt_walk(VIRT_BASE, 2);
    pte_t *copy = new_table(space);

    memcpy(copy, kernel_l2, (pt_index(MACH2PHYS_VIRT_START, 2)) * sizeof(pte_t));
    space->root[slot] = entry_for(copy, PT_LEVELS);
#else
    const pte_t *kernels = pt_walk(VIRT_BASE, PT_LEVELS) - slot;
    unsigned end = IS_64 ? 512 : pt_index(MACH2PHYS_VIRT_START, PT_LEVELS);

    for (; slot < end; slot++)
        space->root[slot] = kernels[slot];
#endif
}

void space_fill(struct space *space)
{
    pte_t *table;

    *space = (struct space){ .root = NULL };
    table = space->root = new_table(space);
    share_kernel(space);
    for (int level = PT_LEVELS; level > 1; level--) {
        pte_t *below = new_table(space);

        table[pt_index(USER_BASE, level)] = entry_for(below, level);
        table = below;
    }
    space->l1 = table;
#if IS_64
    space->user_root = new_table(space);
    space->user_root[pt_index(USER_BASE, PT_LEVELS)] = space->root[pt_index(USER_BASE, PT_LEVELS)];
#endif
}

static void root_ops(const struct space *space, u32 root_cmd, u32 user_cmd, const char *what)
{
    struct mmuext_op ops[2] = {
        { .cmd = root_cmd, .arg1.mfn = virt_to_mfn(space->root) },
        { .cmd = user_cmd, .arg1.mfn = space->user_root ? virt_to_mfn(space->user_root) : 0 },
    };

    called(hv_mmuext_op(ops, IS_64 ? 2 : 1, NULL), what);
}

void space_seal(struct space *space)
{
    for (unsigned i = 0; i < space->nr_tables; i++)
        called(protect_page(space->tables[i], PTE_P | PTE_A), "making a table read-only");
    root_ops(space, PIN_ROOT, PIN_ROOT, "pinning the root tables");
}

void space_switch(const struct space *space)
{
    root_ops(space, MMUEXT_NEW_BASEPTR, MMUEXT_NEW_USER_BASEPTR, "loading the root tables");
}

void space_use_first(void)
{
    first.root = (pte_t *)(pt_walk(VIRT_BASE, PT_LEVELS) - pt_index(VIRT_BASE, PT_LEVELS));
    space_switch(&first);
}

void space_free(struct space *space)
{
    for (word vaddr = USER_BASE; vaddr < DATA_END; vaddr += PAGE_SIZE) {
        pte_t entry = *space_entry(space, vaddr);

        if (entry & PTE_P)
            page_put(page_of_mfn(pte_mfn(entry)));
    }
    root_ops(space, MMUEXT_UNPIN_TABLE, MMUEXT_UNPIN_TABLE, "unpinning the root tables");
    for (unsigned i = 0; i < space->nr_tables; i++) {
        called(protect_page(space->tables[i], PTE_P | PTE_RW | PTE_A | PTE_D | PTE_NX),
               "writing to what was a table");
        page_put(space->tables[i]);
    }
}
