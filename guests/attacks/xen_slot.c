/*
 * Way out: put a table of ours into a slot that is Xen's, and be in every address space.
 * Rule: Xen's slots are not changed by guests (is_guest_l4_slot and its like).
 * Check: hypervisor.mm.pagetables.PageTables._refuse_private_slot
 */
#include "attacks.h"

/* Far behind what Xen has there. */
#if IS_64
#define XENS_SLOT 271
#define IN_XENS (0xffff800000000000 + ((word)15 << 39))
#else
#define XENS_SLOT ((1u << PT_BITS) - 1)
#define IN_XENS ((word)-PAGE_SIZE)
#endif
#define LEVEL (IS_64 ? 4 : 2)

ATTACK(xen_slot, IS_64 ? "-EINVAL" : "-EPERM")
{
    const pte_t *slot = pt_walk(IN_XENS, LEVEL);

    if (refused(map(own[0], virt_to_mfn(own[0]), READABLE)) ||
        refused(update(entry_maddr(slot), make_pte(virt_to_mfn(own[0]), WRITABLE))))
        return;
    if (pte_mfn(*slot) == virt_to_mfn(own[0]))
        escaped("a table of ours in a slot of Xen's");
}
