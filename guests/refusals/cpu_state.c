/* Descriptor tables, segment bases, debug registers (Xen's arch/x86/pv/). */
#include "mm.h"
#include "refusals.h"

static void test_tables(void)
{
    word mfn = virt_to_mfn(alloc_page());

    expect("gdt.too-long", "Xen's own descriptors begin at 7168", -XEN_EINVAL,
           hv_set_gdt(&mfn, 7169));
    expect("gdt.unmapped", "a list that is not mapped", -XEN_EFAULT, hv_set_gdt(UNMAPPED, 512));
    expect("gdt.writable", "a frame that the guest can write", -XEN_EINVAL, hv_set_gdt(&mfn, 512));
    mfn = ~(word)0 >> 16;
    expect("gdt.no-frame", "one that does not exist", -XEN_EINVAL, hv_set_gdt(&mfn, 512));
    mfn = virt_to_mfn(alloc_page());
    expect("descriptor.unaligned", "a descriptor that does not start at one", -XEN_EINVAL,
           hv_update_descriptor(((u64)mfn << PAGE_SHIFT) + 4, 0));
    expect("descriptor.no-frame", "in a frame that does not exist", -XEN_EINVAL,
           hv_update_descriptor((u64)1 << 50, 0));
    expect("descriptor.gate", "an interrupt gate", -XEN_EINVAL,
           hv_update_descriptor((u64)mfn << PAGE_SHIFT, 0x00008e0000080000));
    expect("descriptor.tss", "a task state segment", -XEN_EINVAL,
           hv_update_descriptor((u64)mfn << PAGE_SHIFT, 0x0000890000000067));
    expect("descriptor.absent", "one not present may be anything", 0,
           hv_update_descriptor((u64)mfn << PAGE_SHIFT, 0x00000e0000080000));
}

static void test_bases(void)
{
#if IS_64
    for (int which = SEGBASE_FS; which <= SEGBASE_GS_KERNEL; which++)
        expect("base.not-canonical", "a base that no address can have", -XEN_EINVAL,
               hv_set_segment_base(which, NOT_CANONICAL));
    expect("base.unknown", "one that does not exist", -XEN_EINVAL,
           hv_set_segment_base(NO_OPERATION, 0));
    expect("base.selector", "a selector of nothing loads null", 0,
           hv_set_segment_base(SEGBASE_GS_USER_SEL, 0x0ff8));
#else
    expect("base.none", "32-bit kernels have descriptors for that", -XEN_ENOSYS,
           hypercall(25, SEGBASE_FS, 0, 0));
#endif
}

static void test_debug_registers(void)
{
    expect("dr.8", "there is no DR8", -XEN_ENODEV, hv_set_debugreg(8, 0));
    expect("dr.8-read", "to read neither", -XEN_ENODEV, (long)hv_get_debugreg(8));
    expect("dr.xens", "a breakpoint in Xen's region", -XEN_EPERM,
           hv_set_debugreg(0, (word)xens));
    expect("dr.general-detect", "DR7.GD", -XEN_EPERM, hv_set_debugreg(7, 1 << 13));
    expect("dr.io", "an I/O breakpoint without CR4.DE", -XEN_EPERM, hv_set_debugreg(7, 0x20002));
    expect("dr.io-off", "may be described while it is off", 0, hv_set_debugreg(7, 0x20000));
    hv_set_debugreg(7, 0);
}

void test_cpu_state(void)
{
    test_tables();
    test_bases();
    test_debug_registers();
}
