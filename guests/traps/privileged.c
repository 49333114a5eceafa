/*
 * Privileged instructions in a kernel that is not in ring 0.
 *
 * Each is #GP(0) for the processor (SDM 3A 5.9) and so reaches Xen, which emulates some
 * (emul-priv-op.c: control and debug registers, clts, MSRs it knows, port I/O, cpuid) and hands the
 * others on. What needs the I/O privilege level is judged by the virtual one, which physdev_op
 * set_iopl sets: a kernel at 0 is refused, at 1 cli and sti do nothing at all.
 */
#include "case.h"
#include "hypercall.h"

#define UNUSED_PORT "0x2f0"

PROVOKE(gp_hlt, "", "hlt");
PROVOKE(gp_lgdt, "sub $16, " SP, "lgdt (" SP ")\n add $16, " SP);
PROVOKE(gp_lidt, "", "lidt (" SP ")");
PROVOKE(gp_lldt, "xor %eax, %eax", "lldt %ax");
PROVOKE(gp_ltr, "xor %eax, %eax", "ltr %ax");
PROVOKE(gp_lmsw, "smsw %ax", "lmsw %ax");
PROVOKE(gp_invd, "", "invd");
PROVOKE(gp_invlpg, "", "invlpg (" SP ")");
PROVOKE(gp_rdmsr, "mov $0xdeadbeef, %ecx", "rdmsr");
PROVOKE(gp_wrmsr, "mov $0xdeadbeef, %ecx\n xor %eax, %eax\n xor %edx, %edx", "wrmsr");
PROVOKE(gp_cli, "", "cli");
PROVOKE(gp_sti, "", "sti");
PROVOKE(gp_in, "mov $" UNUSED_PORT ", %edx", "in %dx, %al");
PROVOKE(gp_out, "mov $" UNUSED_PORT ", %edx", "out %al, %dx");
PROVOKE(gp_outsb, "mov $" UNUSED_PORT ", %edx\n mov " SP ", " SI, "outsb");
#if IS_64
PROVOKE(gp_swapgs, "", "swapgs");
PROVOKE(gp_noncanonical, "mov $0x800000000000, %rax", "mov (%rax), %ecx");
PROVOKE(gp_wrmsr_gs, "mov $0xc0000101, %ecx\n xor %eax, %eax\n mov $0x8000, %edx", "wrmsr");
#endif

#define GP(stub, name, text) { CODE(stub), .id = name, .vector = EXC_GP, .rule = text }
#define NOTHING(stub, name, text) { CODE(stub), .id = name, .nothing = true, .rule = text }

static const struct trap_case cases[] = {
    GP(gp_hlt, "gp.hlt", "hlt is not emulated"),
    GP(gp_lgdt, "gp.lgdt", "nor is lgdt: set_gdt exists"),
    GP(gp_lidt, "gp.lidt", "lidt: set_trap_table exists"),
    GP(gp_lldt, "gp.lldt", "lldt: MMUEXT_SET_LDT exists"),
    GP(gp_ltr, "gp.ltr", "ltr: the task register is Xen's"),
    GP(gp_lmsw, "gp.lmsw", "lmsw"),
    GP(gp_invd, "gp.invd", "invd"),
    GP(gp_invlpg, "gp.invlpg", "invlpg: MMUEXT_INVLPG_LOCAL exists"),
    GP(gp_rdmsr, "gp.rdmsr", "rdmsr of an MSR that nobody has"),
    GP(gp_wrmsr, "gp.wrmsr", "wrmsr of one"),
#if IS_64
    GP(gp_swapgs, "gp.swapgs", "swapgs: Xen swaps on kernel entry"),
    GP(gp_noncanonical, "gp.noncanonical", "a load beyond 47 bits (SDM 3A 3.3.7)"),
    GP(gp_wrmsr_gs, "gp.wrmsr-gs", "a GS base beyond 47 bits"),
#endif
};

static const struct trap_case iopl_0_cases[] = {
    GP(gp_cli, "gp.cli", "cli at virtual IOPL 0"),
    GP(gp_sti, "gp.sti", "sti at virtual IOPL 0"),
    GP(gp_in, "gp.in", "in at virtual IOPL 0, port not in the bitmap"),
    GP(gp_out, "gp.out", "out there"),
    GP(gp_outsb, "gp.outsb", "outsb there"),
};

static const struct trap_case iopl_1_cases[] = {
    NOTHING(gp_cli, "iopl1.cli", "cli at virtual IOPL 1 does nothing"),
    NOTHING(gp_sti, "iopl1.sti", "nor does sti"),
    NOTHING(gp_in, "iopl1.in", "in is emulated"),
    NOTHING(gp_out, "iopl1.out", "and out"),
};

/* An I/O port nobody answers reads as all ones, as on a bus without a device. */
static void check_unused_port(void)
{
    u8 value = 0;

    __asm__ volatile("in %%dx, %%al" : "=a"(value) : "d"(0x2f0));
    check_equal("iopl1.in-value", "a port without a device reads as all ones", 0xff, value);
}

void test_privileged(void)
{
    CHECK_ALL(check_trap_case, cases);
    CHECK_ALL(check_trap_case, iopl_0_cases);
    check_equal("iopl1.set", "physdev_op set_iopl 1 is allowed", 0, (u64)hv_set_iopl(1));
    CHECK_ALL(check_trap_case, iopl_1_cases);
    check_unused_port();
    hv_set_iopl(0);
}
