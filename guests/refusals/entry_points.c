/* Where Xen enters the guest: set_trap_table, callback_op, nmi_op (Xen's arch/x86/pv/callback.c). */
#include "refusals.h"

static long set_trap(word address)
{
    struct trap_info table[2] = { { .vector = 200, .cs = FLAT_KERNEL_CS, .address = address },
                                  { .address = 0 } };

    return hv_set_trap_table(table);
}

static long register_callback(u16 type, word address)
{
    struct callback_register arg = {
        .type = type,
#if IS_64
        .address = address,
#else
        .address = { .cs = FLAT_KERNEL_CS, .eip = address },
#endif
    };

    return hv_callback_register(&arg);
}

static long unregister_callback(u16 type)
{
    struct callback_unregister arg = { .type = type };

    return hv_callback_unregister(&arg);
}

static void test_trap_table(void)
{
    expect("traps.unmapped", "a table that is not mapped", -XEN_EFAULT,
           hv_set_trap_table(UNMAPPED));
    expect("traps.xens", "a table in Xen's region", -XEN_EFAULT, hv_set_trap_table(xens));
    expect("traps.not-canonical", "a handler that no code can be at", IS_64 ? -XEN_EINVAL : 0,
           set_trap(NOT_CANONICAL));
}

static void test_register(void)
{
    expect("callback.unknown", "an operation that does not exist",
           IS_64 ? -XEN_ENOSYS : -XEN_EINVAL,
           hypercall(__HYPERVISOR_callback_op, NO_OPERATION, 0, 0));
    expect("callback.unmapped", "an argument that is not mapped", -XEN_EFAULT,
           hypercall(__HYPERVISOR_callback_op, CALLBACKOP_register, (word)UNMAPPED, 0));
    expect("callback.type", "a type that does not exist", -XEN_ENOSYS,
           register_callback(NO_OPERATION, (word)register_callback));
    expect("callback.old-sysenter", "one that went with 32-bit Xen", -XEN_ENOSYS,
           register_callback(3, (word)register_callback));
    expect("callback.syscall", "the syscall of 64-bit kernels", IS_64 ? 0 : -XEN_ENOSYS,
           register_callback(CALLBACKTYPE_syscall, (word)register_callback));
    expect("callback.syscall32", "that of 32-bit programs", 0,
           register_callback(CALLBACKTYPE_syscall32, (word)register_callback));
    if (IS_64)
        expect("callback.not-canonical", "an address that no code can be at", -XEN_EINVAL,
               register_callback(CALLBACKTYPE_sysenter, NOT_CANONICAL));
}

static void test_unregister(void)
{
    expect("callback.keep-event", "the event callback stays", -XEN_EINVAL,
           unregister_callback(CALLBACKTYPE_event));
    expect("callback.keep-failsafe", "and the failsafe one", -XEN_EINVAL,
           unregister_callback(CALLBACKTYPE_failsafe));
    expect("callback.keep-syscall", "that for syscall, where there is one",
           IS_64 ? -XEN_EINVAL : -XEN_ENOSYS, unregister_callback(CALLBACKTYPE_syscall));
    expect("callback.keep-sysenter", "and that for sysenter", -XEN_EINVAL,
           unregister_callback(CALLBACKTYPE_sysenter));
    expect("callback.no-type", "a type that does not exist", -XEN_ENOSYS,
           unregister_callback(NO_OPERATION));
    expect("callback.nmi", "only the one for NMIs can be taken back", 0,
           unregister_callback(CALLBACKTYPE_nmi));
}

static void test_nmi(void)
{
    word nowhere[2] = { NOT_CANONICAL, 0 };

    expect("nmi.unknown", "an operation that does not exist", -XEN_ENOSYS,
           hypercall(__HYPERVISOR_nmi_op, NO_OPERATION, 0, 0));
    expect("nmi.unmapped", "an argument that is not mapped", -XEN_EFAULT,
           hypercall(__HYPERVISOR_nmi_op, XENNMI_register_callback, (word)UNMAPPED, 0));
    if (IS_64)
        expect("nmi.not-canonical", "an address that no code can be at", -XEN_EINVAL,
               hypercall(__HYPERVISOR_nmi_op, XENNMI_register_callback, (word)nowhere, 0));
    expect("nmi.unregister", "taking back what was not given", 0,
           hypercall(__HYPERVISOR_nmi_op, XENNMI_unregister_callback, 0, 0));
}

void test_entry_points(void)
{
    test_trap_table();
    test_register();
    test_unregister();
    test_nmi();
    traps_init();
}
