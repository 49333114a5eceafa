/*
 * Way out: run on the neighbour's page tables. Its image is this one, so our code is there too:
 * load CR3 with its root, read, and come back, all in registers.
 * Rule: a root must be the domain's, and validated as one (new_guest_cr3).
 * Check: hypervisor.mm.frames.FrameTable.get_page
 */
#include "attacks.h"

struct visit {
    word there, back;
    word seen;
};

static word cr3_of(word mfn)
{
    return IS_64 ? mfn << PAGE_SHIFT : mfn << PAGE_SHIFT | mfn >> 20;
}

static void pay_a_visit(void *arg)
{
    struct visit *visit = arg;
    word seen = (word)secret_page;

    __asm__ volatile("mov %1, %%cr3; mov (%0), %0; mov %2, %%cr3"
                     : "+r"(seen)
                     : "r"(visit->there), "r"(visit->back)
                     : "memory");
    visit->seen = seen;
}

ATTACK(base_of_neighbour, "#GP(0)")
{
    struct visit visit = { .there = cr3_of(neighbours_root) };
    struct trap_seen seen;

    __asm__ volatile("mov %%cr3, %0" : "=r"(visit.back));
    trap_catch(pay_a_visit, &visit, &seen);
    if (!trapped(&seen) && visit.seen == SECRET)
        escaped("ran in the neighbour's address space");
}
