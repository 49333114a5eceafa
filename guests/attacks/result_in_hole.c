/*
 * Way out: let a hypercall copy its answer over Xen's region: the kernel that asks may not write
 * there, the hypervisor that answers might.
 * Rule: a pointer from a guest never reaches into the region (access_ok), and it is resolved with
 * the rights of the guest's own tables.
 * Check: hypervisor.mm.guest_memory.GuestMemory._check
 * Check: hypervisor.mm.guest_memory.GuestMemory._translate
 */
#include "attacks.h"

ATTACK(result_in_hole, "-EFAULT")
{
    if (!refused(hv_xen_version(XENVER_extraversion, (void *)MACH2PHYS_VIRT_START)))
        escaped("Xen wrote its own machine-to-physical table for us");
}
