/* The pool: frames of the domain that processes and their tables are made of. */
#include "demand.h"

#include "report.h"
#include "string.h"

#define NR_PAGES 48

static char pool[NR_PAGES][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static unsigned users[NR_PAGES];

static unsigned index_of(const void *page)
{
    return (unsigned)(((const char *)page - pool[0]) / PAGE_SIZE);
}

void *page_alloc(void)
{
    for (unsigned i = 0; i < NR_PAGES; i++)
        if (!users[i]) {
            users[i] = 1;
            return memset(pool[i], 0, PAGE_SIZE);
        }
    panic("all %d pages are used", NR_PAGES);
}

void page_share(void *page)
{
    users[index_of(page)]++;
}

void page_put(void *page)
{
    users[index_of(page)]--;
}

unsigned page_users(const void *page)
{
    return users[index_of(page)];
}

unsigned pages_free(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < NR_PAGES; i++)
        count += !users[i];
    return count;
}

unsigned pages_wiped(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < NR_PAGES; i++)
        if (!users[i]) {
            memset(pool[i], 0, PAGE_SIZE);
            count++;
        }
    return count;
}

/* An entry has the machine's number of a frame; Xen's table leads back to ours. */
void *page_of_mfn(word mfn)
{
    return pfn_to_virt(MACHINE_TO_PHYS[mfn]);
}
