/* sched_op and set_timer_op (Xen's common/sched/core.c), vcpu_op (common/domain.c). */
#include "mm.h"
#include "refusals.h"
#include "time.h"

static long poll(const evtchn_port_t *ports, u32 nr_ports)
{
    struct sched_poll arg = { .ports = ports, .nr_ports = nr_ports, .timeout = 1 };

    return hv_sched_poll(&arg);
}

static long remote_shutdown(domid_t dom)
{
    struct sched_remote_shutdown arg = { .domain_id = dom, .reason = SHUTDOWN_crash };

    return hypercall(__HYPERVISOR_sched_op, SCHEDOP_remote_shutdown, (word)&arg, 0);
}

void test_scheduling(void)
{
    static const evtchn_port_t no_port[] = { NO_PORT };

    expect("sched.unknown", "an operation that does not exist", -XEN_ENOSYS,
           hypercall(__HYPERVISOR_sched_op, NO_OPERATION, 0, 0));
    expect("sched.compat-unknown", "nor in the first form of the hypercall", -XEN_ENOSYS,
           hypercall(__HYPERVISOR_sched_op_compat, NO_OPERATION, 0, 0));
    expect("sched.unmapped", "SCHEDOP_shutdown without an argument", -XEN_EFAULT,
           hypercall(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (word)UNMAPPED, 0));
    expect("poll.129", "128 ports at most", -XEN_EINVAL, poll(no_port, 129));
    expect("poll.huge", "whatever the number", -XEN_EINVAL, poll(no_port, 0xffffffff));
    expect("poll.unmapped", "ports that are not mapped", -XEN_EFAULT, poll(UNMAPPED, 1));
    expect("poll.xens", "ports in Xen's region", -XEN_EFAULT, poll(xens, 1));
    expect("poll.beyond", "a port beyond the table", -XEN_EINVAL, poll(no_port, 1));
    expect("poll.none", "no ports: just the time, which has passed", 0, poll(NULL, 0));
    expect("remote.no-dom", "nobody to end", -XEN_ESRCH, remote_shutdown(NO_DOMAIN));
    expect("remote.self", "DOMID_SELF is nobody here", -XEN_ESRCH, remote_shutdown(DOMID_SELF));
}

static long set_periodic(u64 period_ns)
{
    struct vcpu_set_periodic_timer arg = { .period_ns = period_ns };

    return hv_vcpu_op(VCPUOP_set_periodic_timer, 0, &arg);
}

static long register_info(u64 mfn, u32 offset)
{
    struct vcpu_register_vcpu_info arg = { .mfn = mfn, .offset = offset };

    return hv_vcpu_op(VCPUOP_register_vcpu_info, 0, &arg);
}

void test_vcpus(void)
{
    struct vcpu_set_singleshot_timer past = { .timeout_abs_ns = 1,
                                              .flags = VCPU_SSHOTTMR_future };
    word mfn = virt_to_mfn(alloc_page());
    word table = pte_mfn(*pt_walk((word)test_vcpus, 2));

    expect("vcpu.unknown", "an operation that does not exist", -XEN_ENOSYS,
           hv_vcpu_op(NO_OPERATION, 0, NULL));
    expect("vcpu.none", "a vCPU that does not exist", -XEN_ENOENT,
           hv_vcpu_op(VCPUOP_is_up, NO_VCPU, NULL));
    expect("vcpu.none-unknown", "is looked for first", -XEN_ENOENT,
           hv_vcpu_op(NO_OPERATION, NO_VCPU, NULL));
    expect("vcpu.is-up", "vCPU 0 is up", 1, hv_vcpu_op(VCPUOP_is_up, 0, NULL));
    expect("vcpu.up", "and is not hurt by being taken up", 0, hv_vcpu_op(VCPUOP_up, 0, NULL));
    /* Dom0's is, on a machine with one CPU, and then the argument is looked at. */
    expect_by_rank("vcpu.physid", "this vCPU is not pinned", -XEN_EINVAL, -XEN_EFAULT,
                   hv_vcpu_op(VCPUOP_get_physid, 0, UNMAPPED));
    expect("periodic.short", "a period below 1 ms", -XEN_EINVAL,
           set_periodic(NSEC_PER_MSEC - 1));
    expect("periodic.long", "one beyond Xen's time", -XEN_EINVAL, set_periodic((u64)1 << 62));
    expect("single.unmapped", "set_singleshot_timer without an argument", -XEN_EFAULT,
           hv_vcpu_op(VCPUOP_set_singleshot_timer, 0, UNMAPPED));
    expect("single.future", "VCPU_SSHOTTMR_future counts for nothing since 4.17", 0,
           hv_vcpu_op(VCPUOP_set_singleshot_timer, 0, &past));
    expect("info.offset", "a vcpu_info that leaves its page", -XEN_ENXIO,
           register_info(mfn, PAGE_SIZE - 63));
    expect("info.unaligned", "or that lies across words", -XEN_ENXIO,
           register_info((u64)1 << 40, 1));
    expect("info.no-frame", "in a frame that does not exist", -XEN_EINVAL,
           register_info((u64)1 << 40, 0));
    expect("info.table", "in a page table", -XEN_EINVAL, register_info(table, 0));
}
