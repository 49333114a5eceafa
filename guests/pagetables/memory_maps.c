/* memory_op's questions: how much memory there is and where things are (Xen's common/memory.c,
 * arch_memory_op in arch/x86/mm.c). */
#include "pagetables.h"

static long about(int cmd, u16 domid)
{
    return hv_memory_op(cmd, &domid);
}

static void test_sizes(void)
{
    long now = about(XENMEM_current_reservation, DOMID_SELF);
    long most = about(XENMEM_maximum_reservation, DOMID_SELF);

    check_true("memory.current", "a domain has memory", now > 1000);
    check_true("memory.maximum", "and no more than it may", now <= most);
    expect("memory.nobody", "a domain that does not exist has none", -XEN_ESRCH,
           about(XENMEM_current_reservation, NO_DOMAIN));
    expect("memory.unmapped", "an argument that is not mapped", -XEN_EFAULT,
           hv_memory_op(XENMEM_current_reservation, UNMAPPED));
    expect("memory.at-xen", "or is Xen's", -XEN_EFAULT,
           hv_memory_op(XENMEM_maximum_reservation, xens));
    check_true("memory.machine", "the machine has more frames than the domain",
               hv_memory_op(XENMEM_maximum_ram_page, NULL) > now);
}

static void test_m2p_is_where(void)
{
    word frames[2] = { 0 };
    struct xen_machphys_mfn_list list = { .max_extents = 2, .extent_start = frames };
    struct xen_machphys_mapping mapping = { 0 };

    expect("m2p.list", "the m2p's frames", 0, hv_memory_op(XENMEM_machphys_mfn_list, &list));
    check_true("m2p.list-some", "one at least, and no more than asked for",
               list.nr_extents >= 1 && list.nr_extents <= 2 && frames[0]);
    list.extent_start = UNMAPPED;
    expect("m2p.list-unmapped", "a list that is not mapped", -XEN_EFAULT,
           hv_memory_op(XENMEM_machphys_mfn_list, &list));
    expect("m2p.mapping", "where it is mapped", 0,
           hv_memory_op(XENMEM_machphys_mapping, &mapping));
    check_equal("m2p.start", "from there", MACH2PHYS_VIRT_START, mapping.v_start);
    check_true("m2p.end", "with room for all frames",
               mapping.v_end > mapping.v_start &&
                   (mapping.v_end - mapping.v_start) / sizeof(word) > mapping.max_mfn);
    expect("m2p.mapping-at-xen", "an answer to Xen's own", -XEN_EFAULT,
           hv_memory_op(XENMEM_machphys_mapping, xens));
}

static void test_maps(void)
{
    struct e820_entry entries[2];
    struct xen_memory_map map = { .nr_entries = 0, .buffer = entries };

    expect_by_rank("map.no-room", "a memory map without room for an entry; the first domain's is"
                   " the machine's", -XEN_EINVAL, -XEN_ENOSYS,
                   hv_memory_op(XENMEM_memory_map, &map));
    map.nr_entries = 2;
    expect_by_rank("map.fine", "with room", 0, -XEN_ENOSYS, hv_memory_op(XENMEM_memory_map, &map));
    if (is_dom0)
        check_skip("map.ram", "begins with memory at 0", "no map of its own");
    else
        check_true("map.ram", "begins with memory at 0",
                   map.nr_entries >= 1 && entries[0].start == 0 && entries[0].type == 1);
    map.buffer = xens;
    expect_by_rank("map.at-xen", "into Xen's region", -XEN_EFAULT, -XEN_ENOSYS,
                   hv_memory_op(XENMEM_memory_map, &map));
    map = (struct xen_memory_map){ .nr_entries = 0, .buffer = entries };
    expect_by_rank("map.machine", "the machine's map is for the hardware domain", -XEN_EPERM,
                   -XEN_EINVAL, hv_memory_op(XENMEM_machine_memory_map, &map));
}

static void test_others(void)
{
    struct xen_add_to_physmap add = { .domid = DOMID_SELF };

    expect("memory.add", "translated domains alone have a map to add to", -XEN_EACCES,
           hv_memory_op(XENMEM_add_to_physmap, &add));
    expect("memory.remove", "or to take from", -XEN_EACCES,
           hv_memory_op(XENMEM_remove_from_physmap, &add));
    expect("memory.unknown", "an operation that does not exist", -XEN_ENOSYS,
           hv_memory_op(50, &add));
}

void test_memory_maps(void)
{
    test_sizes();
    test_m2p_is_where();
    test_maps();
    test_others();
}
