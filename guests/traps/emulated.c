/*
 * What Xen does for a kernel when it executes a privileged instruction, instead of passing the #GP
 * on (emul-priv-op.c): the kernel then reads its virtual registers.
 */
#include "case.h"
#include "events.h"
#include "hypercall.h"
#include "mm.h"

#define READ(reg)                                                                                  \
    ({                                                                                             \
        word value_;                                                                               \
        __asm__ volatile("mov %%" reg ", %0" : "=r"(value_));                                      \
        value_;                                                                                    \
    })

#define CR0_PE (1u << 0)
#define CR0_TS (1u << 3)
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)

/* PAE guests see CR3 folded, so that 40-bit frame numbers fit (public/arch-x86/xen-x86_32.h). */
static word cr3_of(word mfn)
{
#if defined(WIDTH_X86_32P)
    return mfn << 12 | mfn >> 20;
#else
    return mfn << 12;
#endif
}

static void test_control_registers(const pte_t *top)
{
    word cr0 = READ("cr0");

    check_true("cr0.read", "mov from CR0 shows paging and protection",
               (cr0 & CR0_PE) && (cr0 & CR0_PG));
    hv_fpu_taskswitch(true);
    check_true("cr0.ts", "and TS as fpu_taskswitch set it", READ("cr0") & CR0_TS);
    hv_fpu_taskswitch(false);
    check_true("cr0.no-ts", "or cleared it", !(READ("cr0") & CR0_TS));
    check_equal("cr3.read", "mov from CR3 is the frame of pt_base", cr3_of(virt_to_mfn(top)),
                READ("cr3"));
    check_true("cr4.pae", "CR4.PAE as the width needs",
               !!(READ("cr4") & CR4_PAE) == (PT_LEVELS > 2));
}

/*
 * Single-stepping sees an emulated instruction as one that was executed (pv_emul_instruction_done).
 * A port's is not asked about: Xen 4.17 is seen to tell of the step one instruction later.
 */
#define SET_TF "pushf\n orl $0x100, (" SP ")\n popf"
PROVOKE(step_mov_cr0, SET_TF, "mov %cr0, " AX);
PROVOKE(step_cpuid, "xor %eax, %eax\n" SET_TF, ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2");

#define STEP(stub, name, text)                                                                     \
    { CODE(stub), .id = name, .vector = EXC_DB, .where = AFTER, .rule = text }

static void test_single_steps(void)
{
    static const struct trap_case steps[] = {
        STEP(step_mov_cr0, "step.mov-cr0", "TF: #DB after an emulated mov from CR0"),
        STEP(step_cpuid, "step.forced-cpuid", "after a cpuid by the forced prefix"),
    };

    CHECK_ALL(check_trap_case, steps);
}

/* Bits of CR4 that are Xen's are kept as they are, silently (pv_fixup_guest_cr4). */
PROVOKE(cr4_vmxe, "mov %cr4, " AX "\n xor $0x2000, " AX, "mov " AX ", %cr4");

static void test_cr4(void)
{
    static const struct trap_case ignored = {
        CODE(cr4_vmxe), .id = "cr4.write", .nothing = true,
        .rule = "a write of bits that are Xen's is no fault",
    };
    word before = READ("cr4");
    struct trap_seen seen;

    check_trap_case(&ignored, &seen);
    check_true("cr4.kept", "and changes nothing", READ("cr4") == before);
}

/* A kernel outside ring 0 has no say over the processor's IF: it stays set (SDM 2 POPF), and the
 * upcall mask is what counts. */
static void test_flags(void)
{
    word flags;

    __asm__ volatile("pushf\n push $2\n popf\n pushf\n pop %0\n popf" : "=r"(flags));
    check_true("flags.if", "popf cannot clear IF", flags & FLAG_IF);
    check_equal("flags.mask", "and has nothing to do with the upcall mask", 1,
                vcpu_info()->evtchn_upcall_mask);
}

static void cpuid(u32 leaf, bool forced, u32 regs[4])
{
    /* The prefix ud2; "xen" makes Xen run the instruction behind it (public/arch-x86/xen.h). */
    if (forced)
        __asm__ volatile(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e\n cpuid"
                         : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3])
                         : "a"(leaf), "c"(0));
    else
        __asm__ volatile("cpuid" : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3])
                         : "a"(leaf), "c"(0));
}

static void test_cpuid(void)
{
    static const u32 signature[3] = { 0x566e6558, 0x65584d4d, 0x4d4d566e }; /* XenVMMXenVMM */
    u32 regs[4];

    cpuid(0x40000000, true, regs);
    check_true("cpuid.forced", "leaf 40000000 by the forced-emulation prefix is Xen's signature",
               regs[1] == signature[0] && regs[2] == signature[1] && regs[3] == signature[2]);
    check_true("cpuid.leaves", "and there is a leaf with the version", regs[0] >= 0x40000001);
    cpuid(0x40000001, true, regs);
    check_equal("cpuid.version", "which agrees with xen_version", (u64)hv_xen_version(0, NULL),
                regs[0]);
}

static void test_debug_registers(void)
{
    word dr6, dr7;

    check_equal("dr.set", "set_debugreg 0 takes an address", 0, (u64)hv_set_debugreg(0, 0x1234));
    check_equal("dr.get", "get_debugreg gives it back", 0x1234, hv_get_debugreg(0));
    check_equal("dr.mov", "so does mov from DR0, emulated", 0x1234, READ("db0"));
    hv_set_debugreg(0, 0);
    check_equal("dr.8", "there is no DR8", (word)-XEN_ENODEV, (word)hv_set_debugreg(8, 0));
    check_equal("dr.kernel-address", "DR0 may not point into Xen", (word)-XEN_EPERM,
                (word)hv_set_debugreg(0, MACH2PHYS_VIRT_START));
    dr6 = hv_get_debugreg(6);
    dr7 = hv_get_debugreg(7);
    check_equal("dr.fixed", "DR6 and DR7 have bits that are always 1 (SDM 3B 17.2)",
                0xffff0ff0 + 0x400, (dr6 & 0xffff0ff0) + (dr7 & 0x400));
}

#if IS_64
static u64 rdmsr(u32 msr)
{
    u32 low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (u64)high << 32 | low;
}

static void wrmsr(u32 msr, u64 value)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((u32)value), "d"((u32)(value >> 32)));
}

#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101

static word through_fs(void)
{
    word value;

    __asm__ volatile("mov %%fs:0, %0" : "=r"(value));
    return value;
}

static word through_gs(void)
{
    word value;

    __asm__ volatile("mov %%gs:0, %0" : "=r"(value));
    return value;
}

static void test_segment_bases(void)
{
    static volatile word one = 0x1111, two = 0x2222;

    wrmsr(MSR_FS_BASE, (u64)&one);
    check_equal("base.fs-msr", "wrmsr of FS_BASE, emulated, moves FS", 0x1111, through_fs());
    check_equal("base.fs-read", "and rdmsr reads it back", (u64)&one, rdmsr(MSR_FS_BASE));
    hv_set_segment_base(SEGBASE_FS, (word)&two);
    check_equal("base.fs", "so does set_segment_base", 0x2222, through_fs());
    wrmsr(MSR_GS_BASE, (u64)&one);
    check_equal("base.gs-msr", "wrmsr of GS_BASE moves GS", 0x1111, through_gs());
    hv_set_segment_base(SEGBASE_GS_KERNEL, (word)&two);
    check_equal("base.gs-kernel", "SEGBASE_GS_KERNEL is the kernel's GS", 0x2222, through_gs());
    check_equal("base.noncanonical", "an address beyond 47 bits is refused", (u64)-XEN_EINVAL,
                (u64)hv_set_segment_base(SEGBASE_FS, 1ul << 47));
    hv_set_segment_base(SEGBASE_FS, 0);
    hv_set_segment_base(SEGBASE_GS_KERNEL, 0);
}
#endif

/* The hypercall page only holds the instruction; a kernel may use it directly. */
static long direct_xen_version(void)
{
    long ret;

#if IS_64
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(__HYPERVISOR_xen_version), "D"(XENVER_version), "S"(0)
                     : "rcx", "r11", "memory");
#else
    __asm__ volatile("int $0x82"
                     : "=a"(ret)
                     : "a"(__HYPERVISOR_xen_version), "b"(XENVER_version), "c"(0)
                     : "memory");
#endif
    return ret;
}

static void test_hypercalls(void)
{
    check_equal("hypercall.direct", "the instruction of the hypercall page works without it",
                (u64)hv_xen_version(XENVER_version, NULL), (u64)direct_xen_version());
    check_equal("hypercall.unknown", "a number without a hypercall is -ENOSYS", (word)-XEN_ENOSYS,
                (word)HYPERCALL1(60, 0));
}

void test_emulated(void)
{
    /* The entry that maps address 0 lies at the start of the top table. */
    test_control_registers(pt_walk(0, PT_LEVELS));
    test_single_steps();
    test_cr4();
    test_flags();
    test_cpuid();
    test_debug_registers();
    test_hypercalls();
#if IS_64
    test_segment_bases();
#endif
}
