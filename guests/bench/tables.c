/*
 * The ways to change a mapping: one update_va_mapping each, mmu_update by batches of 512, a plain
 * store to the page table, and a page fault whose handler maps the page.
 *
 * All of them work on one page after the other of a buffer, and leave it mapped as it was.
 */
#include "bench.h"

#include "hypercall.h"
#include "mm.h"
#include "events.h"
#include "report.h"
#include "traps.h"

#define PAGES 512
#define BATCH 512
#define MAPPED (PTE_P | PTE_RW | PTE_A | PTE_D)

static char pages[PAGES][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static struct mmu_update batch[BATCH];

static pte_t entry_of(unsigned page, pte_t flags)
{
    return make_pte(virt_to_mfn(pages[page]), flags);
}

/* The entry's machine address, as mmu_update wants it. */
static u64 place_of(unsigned page)
{
    const pte_t *entry = pt_walk((word)pages[page], 1);

    return ((u64)virt_to_mfn(entry) << PAGE_SHIFT) | ((word)entry & (PAGE_SIZE - 1));
}

static void require(long err, const char *what)
{
    if (err)
        panic("%s: error %ld", what, err);
}

/* Each update takes the right to write away, or gives it back: references change every time. */
static pte_t toggled(u64 round)
{
    return round & PAGES ? MAPPED : PTE_P | PTE_A;
}

void map_loop(u64 count)
{
    static pte_t entries[2][PAGES];

    for (unsigned page = 0; page < PAGES; page++) {
        entries[0][page] = entry_of(page, toggled(0));
        entries[1][page] = entry_of(page, toggled(PAGES));
    }
    for (u64 i = 0; i < count; i++) {
        unsigned page = (unsigned)i % PAGES;

        hv_update_va_mapping((word)pages[page], entries[i / PAGES % 2][page], 0);
    }
}

void batch_loop(u64 count)
{
    for (unsigned i = 0; i < BATCH; i++)
        batch[i].ptr = place_of(i % PAGES);
    for (u64 done = 0; done < count; done += BATCH) {
        for (unsigned i = 0; i < BATCH; i++)
            batch[i].val = entry_of(i % PAGES, toggled(done));
        require(hv_mmu_update(batch, BATCH, NULL), "mmu_update");
    }
}

void entry_loop(u64 count)
{
    require(hv_vm_assist(VMASST_CMD_enable, VMASST_TYPE_writable_pagetables), "vm_assist");
    for (u64 i = 0; i < count; i++) {
        unsigned page = (unsigned)i % PAGES;
        volatile pte_t *entry = (volatile pte_t *)pt_walk((word)pages[page], 1);

        *entry = entry_of(page, toggled(i));
    }
}

/* The handler of what is not mapped. */
static bool map_what_is_missing(struct regs *regs)
{
    word vaddr = vcpu_info()->arch.cr2 & ~(word)(PAGE_SIZE - 1);
    unsigned page = (unsigned)((vaddr - (word)pages) >> PAGE_SHIFT);

    (void)regs;
    return page < PAGES && !hv_update_va_mapping(vaddr, entry_of(page, MAPPED), 0);
}

void touch_loop(u64 count)
{
    trap_handler old = trap_set_handler(EXC_PF, map_what_is_missing);

    for (unsigned i = 0; i < BATCH; i++)
        batch[i] = (struct mmu_update){ .ptr = place_of(i), .val = 0 };
    for (u64 i = 0; i < count; i++) {
        if (i % PAGES == 0) {
            struct mmuext_op flush = { .cmd = MMUEXT_TLB_FLUSH_LOCAL };

            require(hv_mmu_update(batch, BATCH, NULL), "mmu_update");
            require(hv_mmuext_op(&flush, 1, NULL), "flush");
        }
        ((volatile char *)pages[i % PAGES])[0] = 1;
    }
    trap_set_handler(EXC_PF, old);
    for (unsigned page = 0; page < PAGES; page++)
        require(protect_page(pages[page], MAPPED), "mapping");
}
