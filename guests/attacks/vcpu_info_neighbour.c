/*
 * Way out: keep our vcpu_info in a frame of the neighbour's; Xen writes there at every event.
 * Rule: the frame must be the domain's, and ordinary memory (map_vcpu_info).
 * Check: hypervisor.mm.frames.FrameTable.get_page
 */
#include "attacks.h"

ATTACK(vcpu_info_neighbour, "-EINVAL")
{
    struct vcpu_register_vcpu_info info = { .mfn = neighbours_mfn };

    if (!refused(hv_vcpu_op(VCPUOP_register_vcpu_info, 0, &info)))
        escaped("Xen writes events into the neighbour's memory");
}
