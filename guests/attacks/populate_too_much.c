/*
 * Way out: take all the memory there is.
 * Rule: a domain holds no more than its maximum (assign_pages).
 * Check: hypervisor.hypercalls.memory._check_limit
 */
#include "attacks.h"

ATTACK(populate_too_much, "none done")
{
    word mfn = 0;

    if (populate_frame(0x100000, &mfn))
        outcome("none done");
    else
        escaped("a frame more than the domain may have");
}
