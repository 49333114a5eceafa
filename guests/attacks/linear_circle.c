/*
 * Way out: two tables that name each other hold each other for ever, and their frames are lost to
 * the machine when the domain ends.
 * Rule: a table that is named linearly names none so itself (get_l2_linear_pagetable).
 * Check: hypervisor.mm.linear.LinearUses.add
 */
#include "attacks.h"

ATTACK(linear_circle, "-EINVAL")
{
    word a = virt_to_mfn(own[0]), b = virt_to_mfn(own[1]);

    if (refused(map(own[0], a, READABLE)) || refused(map(own[1], b, READABLE)) ||
        refused(extended(MMUEXT_PIN_L2_TABLE, a, 0)) ||
        refused(extended(MMUEXT_PIN_L2_TABLE, b, 0)) ||
        refused(update((u64)a << PAGE_SHIFT, make_pte(b, READABLE))) ||
        refused(update((u64)b << PAGE_SHIFT, make_pte(a, READABLE))))
        return;
    escaped("two tables hold each other");
}
