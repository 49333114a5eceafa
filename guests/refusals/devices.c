/* The console, virtual hardware, and what Xen says of itself. */
#include "refusals.h"

static long set_iobitmap(const void *bitmap, u32 nr_ports)
{
    struct physdev_set_iobitmap arg = { .bitmap = bitmap, .nr_ports = nr_ports };

    return hypercall(__HYPERVISOR_physdev_op, PHYSDEVOP_set_iobitmap, (word)&arg, 0);
}

static void test_physdev(void)
{
    static u8 bitmap[16];

    expect("physdev.unknown", "an operation that does not exist", -XEN_ENOSYS,
           hypercall(__HYPERVISOR_physdev_op, NO_OPERATION, 0, 0));
    expect("physdev.unmapped", "an argument that is not mapped", -XEN_EFAULT,
           hypercall(__HYPERVISOR_physdev_op, PHYSDEVOP_set_iopl, (word)UNMAPPED, 0));
    expect("iopl.4", "there are four levels", -XEN_EINVAL, hv_set_iopl(4));
    expect("iobitmap.ports", "there are 65536 ports", -XEN_EINVAL, set_iobitmap(bitmap, 65537));
    expect("iobitmap.xens", "a bitmap in Xen's region", -XEN_EINVAL, set_iobitmap(xens, 8));
    expect("iobitmap.unmapped", "one that is not mapped is looked at when it is used", 0,
           set_iobitmap(UNMAPPED, 8));
    expect("iobitmap.none", "and may be taken back", 0, set_iobitmap(NULL, 0));
}

static void test_assists(void)
{
    expect("assist.type", "an assist that does not exist", -XEN_EINVAL,
           hv_vm_assist(VMASST_CMD_enable, NO_OPERATION));
    expect("assist.type-31", "in no width", -XEN_EINVAL, hv_vm_assist(VMASST_CMD_enable, 31));
    expect("assist.m2p-strict", "one that 64-bit kernels have", IS_64 ? 0 : -XEN_EINVAL,
           hv_vm_assist(VMASST_CMD_disable, 32));
    expect("assist.4gb", "and one from 32-bit days that stayed", 0,
           hv_vm_assist(VMASST_CMD_disable, 0));
    expect("assist.command", "neither enable nor disable", -XEN_ENOSYS,
           hv_vm_assist(NO_OPERATION, VMASST_TYPE_architectural_iopl));
}

#define PV_FEATURES                                                                                \
    (1 << XENFEAT_mmu_pt_update_preserve_ad | 1 << XENFEAT_highmem_assist |                        \
     1 << XENFEAT_gnttab_map_avail_bits | 1 << XENFEAT_memory_op_vnode_supported |                 \
     1 << XENFEAT_direct_mapped)

static void test_version(void)
{
    struct xen_feature_info features = { .submap_idx = 99 };

    expect("version.unknown", "a question that Xen does not know", -XEN_ENOSYS,
           hv_xen_version(NO_OPERATION, NULL));
    expect("version.unmapped", "nowhere to put the answer", -XEN_EFAULT,
           hv_xen_version(XENVER_extraversion, UNMAPPED));
    expect("version.xens", "or only in Xen's region", -XEN_EFAULT,
           hv_xen_version(XENVER_extraversion, xens));
    expect("version.submap", "features that there are none of", -XEN_EINVAL,
           hv_xen_version(XENVER_get_features, &features));
    features.submap_idx = 0;
    hv_xen_version(XENVER_get_features, &features);
    expect("version.features", "those of a PV domain, whether the initial one or not", PV_FEATURES,
           features.submap & ~(1u << XENFEAT_dom0));
}

static void test_console(void)
{
    expect_by_rank("console.unknown", "a command that does not exist", -XEN_EPERM, -XEN_ENOSYS,
                   hypercall(__HYPERVISOR_console_io, NO_OPERATION, 0, 0));
    expect_by_rank("console.read", "2^31 bytes to read; others may read none", -XEN_EPERM,
                   -XEN_E2BIG, hypercall(__HYPERVISOR_console_io, CONSOLEIO_read, 0x80000000, 0));
    expect("console.unmapped", "text that is not mapped", -XEN_EFAULT,
           hv_console_write(UNMAPPED, 1));
    expect("console.huge", "however long it is", -XEN_EFAULT,
           hv_console_write(UNMAPPED, 0xffffffff));
    expect("console.nothing", "nothing is nowhere", 0, hv_console_write(UNMAPPED, 0));
}

void test_devices(void)
{
    test_physdev();
    test_assists();
    test_version();
    test_console();
}

/* Hypercalls that do not exist, and operations of the large families that do not. */
void test_numbers(void)
{
    static const u8 unused[] = { 11, 43, 47, 55, 56, 63, 127 };

    for (size_t i = 0; i < ARRAY_SIZE(unused); i++)
        expect("number.unused", "no hypercall has this number", -XEN_ENOSYS,
               hypercall(unused[i], 0, 0, 0));
    expect("number.tmem", "one that was taken out of Xen", -XEN_ENOSYS, hypercall(38, 0, 0, 0));
    expect("memory.unknown", "memory_op", -XEN_ENOSYS,
           hypercall(__HYPERVISOR_memory_op, 63, 0, 0));
    expect("grant.unknown", "grant_table_op", -XEN_ENOSYS,
           hypercall(__HYPERVISOR_grant_table_op, NO_OPERATION, 0, 1));
    expect("multicall.unmapped", "a list that is not mapped", -XEN_EFAULT,
           hv_multicall(UNMAPPED, 1));
    expect("multicall.xens", "a list in Xen's region", -XEN_EFAULT, hv_multicall(xens, 1));
    expect("multicall.empty", "no list", 0, hv_multicall(UNMAPPED, 0));
}
