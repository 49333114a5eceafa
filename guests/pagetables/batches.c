/*
 * Lists of requests: they are done in order up to the first that is refused, and how many were is
 * told (do_mmu_update, do_mmuext_op in Xen's arch/x86/mm.c).
 */
#include "console.h"
#include "pagetables.h"

#define NR 700 /* more than is done at one go */

static struct mmu_update requests[NR];

static void check_done(const char *id, const char *rule, long want, u32 want_done, long got,
                       u32 done)
{
    char want_text[32], got_text[32];

    format(want_text, sizeof(want_text), "%ld after %u", want, want_done);
    format(got_text, sizeof(got_text), "%ld after %u", got, done);
    check_text(id, rule, want_text, got_text);
}

/* The same entry again and again, its available bits counting. */
static void fill(const pte_t *leaf, word mfn)
{
    for (unsigned i = 0; i < NR; i++)
        requests[i] = (struct mmu_update){
            .ptr = maddr_of(leaf + i % 64),
            .val = make_pte(mfn, PTE_P | PTE_RW | (i % 8) << 9),
        };
}

static unsigned nr_present(const pte_t *leaf)
{
    unsigned found = 0;

    for (unsigned i = 0; i < 64; i++)
        found += leaf[i] & PTE_P;
    return found;
}

static void clear(const pte_t *leaf)
{
    for (unsigned i = 0; i < 64; i++)
        set_entry(leaf + i, 0);
}

static void test_stops(const pte_t *leaf, word mfn)
{
    u32 done = 77;
    long err;

    fill(leaf, mfn);
    err = hv_mmu_update(requests, NR, &done);
    check_done("batch.all", "all of them", 0, NR, err, done);
    check_equal("batch.last-wins", "the last on an entry stands", (NR - 1) % 8,
                (leaf[(NR - 1) % 64] & PTE_AVAIL) >> 9);
    clear(leaf);
    requests[21].val = make_pte(virt_to_mfn(leaf), PTE_P | PTE_RW);
    err = hv_mmu_update(requests, NR, &done);
    check_done("batch.refused", "up to a refused one", -XEN_EBUSY, 21, err, done);
    check_equal("batch.before", "those before it are done, none behind", 21, nr_present(leaf));
    clear(leaf);
    requests[21] = requests[20];
    requests[600].ptr = (u64)NO_FRAME << PAGE_SHIFT;
    err = hv_mmu_update(requests, NR, &done);
    check_done("batch.late", "however late it comes", -XEN_EINVAL, 600, err, done);
    clear(leaf);
    err = hv_mmu_update(requests, 0, &done);
    check_done("batch.none", "none", 0, 0, err, done);
    expect("batch.no-count", "nobody need be told", 0, hv_mmu_update(requests, 1, NULL));
    expect("batch.count-at-xen", "nor can everybody", 0, hv_mmu_update(requests, 1, xens));
    clear(leaf);
}

/* Retyping within a list: each request finds what those before it did. */
static void test_retyping(const pte_t *leaf)
{
    pte_t *table = fresh_page();
    const pte_t *own = pt_walk((word)table, 1);
    struct mmu_update steps[] = {
        { maddr_of(table), make_pte(virt_to_mfn(table), PTE_P) }, /* a word of a page */
        { maddr_of(own), make_pte(virt_to_mfn(table), PTE_P | PTE_A) },
        { maddr_of(free_entry(2)), make_pte(virt_to_mfn(table), PTE_RIGHTS) },
        { maddr_of(table), 0 }, /* an entry of a table */
        { maddr_of(leaf), make_pte(virt_to_mfn(table), PTE_P | PTE_RW) }, /* refused: a table */
    };
    u32 done = 77;
    long err = hv_mmu_update(steps, ARRAY_SIZE(steps), &done);

    check_done("batch.retyping", "a page becomes a table within one list", -XEN_EBUSY, 4, err,
               done);
    set_entry(free_entry(2), 0);
    extended(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
    give_back(table);
}

static void test_extended(void)
{
    pte_t *table = fresh_table();
    word mfn = virt_to_mfn(table);
    struct mmuext_op ops[] = {
        { .cmd = MMUEXT_PIN_L1_TABLE, .arg1.mfn = mfn },
        { .cmd = MMUEXT_UNPIN_TABLE, .arg1.mfn = mfn },
        { .cmd = MMUEXT_PIN_L1_TABLE, .arg1.mfn = mfn },
        { .cmd = MMUEXT_PIN_L1_TABLE, .arg1.mfn = mfn },
        { .cmd = MMUEXT_UNPIN_TABLE, .arg1.mfn = mfn },
    };
    u32 done = 77;
    long err = hv_mmuext_op(ops, ARRAY_SIZE(ops), &done);

    check_done("batch.extended", "mmuext_op goes by the same rules", -XEN_EINVAL, 3, err, done);
    unpin(table);
    err = hv_mmuext_op(ops, 2, &done);
    check_done("batch.extended-all", "and so does its success", 0, 2, err, done);
    give_back(table);
}

void test_batches(void)
{
    const pte_t *leaf = free_entry(1);
    void *page = fresh_page();

    test_stops(leaf, virt_to_mfn(page));
    test_retyping(leaf);
    test_extended();
    give_back(page);
}
