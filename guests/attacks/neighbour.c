/*
 * The neighbour: it fills its memory, says that it is ready, and looks again and again whether all
 * is as it left it. What it prints must not depend on who else is there.
 */
#include "attacks.h"

#include "events.h"

#define ROUNDS 20

word secret_page[PAGE_SIZE / sizeof(word)] __attribute__((aligned(PAGE_SIZE)));

static unsigned words_changed(void)
{
    unsigned changed = 0;

    for (size_t i = 0; i < ARRAY_SIZE(secret_page); i++)
        changed += secret_page[i] != SECRET + i;
    return changed;
}

NORETURN void be_the_neighbour(void)
{
    unsigned changed = 0;

    for (size_t i = 0; i < ARRAY_SIZE(secret_page); i++)
        secret_page[i] = SECRET + i;
    print("neighbour: ready\n");
    for (unsigned round = 0; round < ROUNDS; round++) {
        hv_sched_yield();
        changed += words_changed();
    }
    print("neighbour: %u words have changed in %d rounds\n", changed, ROUNDS);
    power_off();
}
