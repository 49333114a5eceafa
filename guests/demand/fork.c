/*
 * Fork: the child gets every page of its parent, and neither may write until it has a copy.
 *
 * The child's tables are new, so they are filled as ordinary memory and checked by Xen at one go.
 * The parent's table is in use: each of its entries has to lose RW, and there are three ways.
 */
#include "demand.h"

#include "hypercall.h"
#include "report.h"

#define SHARED (PTE_P | PTE_US | PTE_A | PTE_COW | PTE_NX)

struct cost fork_costs[NR_WAYS];
unsigned fork_pages[NR_WAYS];

struct change {
    word vaddr;
    pte_t *at;
    pte_t entry;
};

/* Xen's help for kernels that write to their tables as they would without Xen. */
void forks_init(void)
{
    called(hv_vm_assist(VMASST_CMD_enable, VMASST_TYPE_writable_pagetables), "vm_assist");
}

static void flush(void)
{
    struct mmuext_op op = { .cmd = MMUEXT_TLB_FLUSH_LOCAL };

    called(hv_mmuext_op(&op, 1, NULL), "flushing the TLB");
}

/* One hypercall an entry; the page's translation is forgotten by the same call. */
static void one_by_one(const struct change *changes, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        called(hv_update_va_mapping(changes[i].vaddr, changes[i].entry, UVMF_INVLPG),
               "update_va_mapping");
}

/* One hypercall for all entries, and one for the TLB. */
static void one_batch(const struct change *changes, unsigned count)
{
    struct mmu_update updates[NR_DATA_PAGES];

    for (unsigned i = 0; i < count; i++)
        updates[i] = (struct mmu_update){
            .ptr = (u64)virt_to_mfn(changes[i].at) << PAGE_SHIFT |
                   ((word)changes[i].at & (PAGE_SIZE - 1)) | MMU_NORMAL_PT_UPDATE,
            .val = changes[i].entry,
        };
    called(hv_mmu_update(updates, count, NULL), "mmu_update");
    flush();
}

/* As if there were no Xen. The page is read-only, so each store is a fault: Xen decodes the
 * instruction, checks the entry, and does it. PAE's upper word stays as it is. */
static void plain_stores(const struct change *changes, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        *(volatile word *)changes[i].at = (word)changes[i].entry;
        cost.stores++;
    }
    flush();
}

static void (*const ways[NR_WAYS])(const struct change *, unsigned) = {
    [ONE_BY_ONE] = one_by_one,
    [ONE_BATCH] = one_batch,
    [PLAIN_STORES] = plain_stores,
};

void fork_space(struct space *parent, struct space *child, enum way way)
{
    struct change changes[NR_DATA_PAGES];
    unsigned count = 0;
    struct cost before;

    space_fill(child);
    *space_entry(child, USER_CODE) = *space_entry(parent, USER_CODE);
    page_share(page_of_mfn(pte_mfn(*space_entry(parent, USER_CODE))));
    for (word vaddr = DATA_BASE; vaddr < DATA_END; vaddr += PAGE_SIZE) {
        pte_t *at = space_entry(parent, vaddr);
        pte_t entry = make_pte(pte_mfn(*at), SHARED);

        if (!(*at & PTE_P))
            continue;
        page_share(page_of_mfn(pte_mfn(*at)));
        *space_entry(child, vaddr) = entry;
        changes[count++] = (struct change){ .vaddr = vaddr, .at = at, .entry = entry };
    }
    before = cost;
    ways[way](changes, count);
    fork_costs[way] = cost_since(&before);
    fork_pages[way] = count;
    space_seal(child);
}
