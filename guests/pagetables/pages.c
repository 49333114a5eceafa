/* Pages that tables are made of, and where they are tried. */
#include "pagetables.h"
#include "string.h"

#define NR_PAGES 96

static char pages[NR_PAGES][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static bool is_used[NR_PAGES];

static unsigned number_of(const void *page)
{
    return (unsigned)(((word)page - (word)pages) / PAGE_SIZE);
}

void make_read_only(void *page)
{
    long err = protect_page(page, PTE_P | PTE_A);

    if (err)
        panic("page %u cannot be made read-only: %ld", number_of(page), err);
}

void make_writable(void *page)
{
    long err = protect_page(page, PTE_P | PTE_RW | PTE_A | PTE_D);

    if (err)
        panic("page %u cannot be made writable: %ld", number_of(page), err);
}

void *fresh_page(void)
{
    for (unsigned nr = 0; nr < NR_PAGES; nr++) {
        if (is_used[nr])
            continue;
        is_used[nr] = true;
        make_writable(pages[nr]);
        return memset(pages[nr], 0, PAGE_SIZE);
    }
    panic("all %d pages are used", NR_PAGES);
}

pte_t *fresh_table(void)
{
    void *page = fresh_page();

    make_read_only(page);
    return page;
}

void give_back(void *page)
{
    is_used[number_of(page)] = false;
}

void sandbox_init(void)
{
    void *page = fresh_page();

    map_page(SANDBOX, virt_to_mfn(page), PTE_RIGHTS);
    set_l1e(SANDBOX, 0);
    give_back(page);
}

const pte_t *free_entry(int level)
{
    word size = (word)1 << (PAGE_SHIFT + PT_BITS * (level - 1));

    return pt_walk(SANDBOX / size * size + size, level);
}

/* A reference that a refused request left behind would keep a page from one of its uses. */
void test_nothing_is_left(void)
{
    unsigned in_use = 0, stuck = 0;

    for (unsigned nr = 0; nr < NR_PAGES; nr++) {
        in_use += is_used[nr];
        make_writable(pages[nr]);
        memset(pages[nr], 0, PAGE_SIZE);
        make_read_only(pages[nr]);
        stuck += pin(1, pages[nr]) || unpin(pages[nr]);
    }
    check_equal("left.pages", "every page was given back", 0, in_use);
    check_equal("left.references", "and each can be a table, and a page, again", 0, stuck);
}
