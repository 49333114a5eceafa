/*
 * Way out: a call gate that leads to a segment of Xen's.
 * Rule: a gate's target is not one of Xen's descriptors but the guest kernel's own code segment
 * (check_descriptor).
 * Check: hypervisor.mm.descriptors._checked_gate
 */
#include "attacks.h"

/* To selector 0xe008, from ring 3. */
#define GATE ((u64)0x0000ec00 << 32 | (u64)0xe008 << 16)

ATTACK(call_gate, "-EINVAL")
{
    word mfn = virt_to_mfn(own[0]);

    if (refused(map(own[0], mfn, READABLE)) || refused(hv_set_gdt(&mfn, 512)) ||
        refused(hv_update_descriptor(((u64)mfn << PAGE_SHIFT) + 16, GATE)))
        return;
    if (((volatile u64 *)own[0])[2] == GATE)
        escaped("a gate to ring 0 in the GDT");
}
