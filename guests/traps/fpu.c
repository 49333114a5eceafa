/*
 * The FPU: #NM while CR0.TS is set, and the floating-point exceptions.
 *
 * TS is how a kernel switches FPU state lazily. A PV guest sets it with fpu_taskswitch(1), or with
 * a write to CR0 or clts, which Xen emulates; when the #NM is delivered Xen has cleared it
 * (do_device_not_available, arch/x86/traps.c), where bare hardware would leave it set.
 */
#include "case.h"
#include "hypercall.h"

PROVOKE(nm_fnop, "", "fnop");
PROVOKE(nm_paddb, "", "paddb %mm0, %mm1");
PROVOKE(nm_movaps, "", "movaps %xmm0, %xmm1");
PROVOKE(mf_fwait,
        "fninit\n push $0x37b\n fldcw (" SP ")\n pop " AX "\n fld1\n fldz\n fdivrp", "fwait");
PROVOKE(xm_divss,
        "push $0x1d80\n ldmxcsr (" SP ")\n pop " AX "\n xorps %xmm0, %xmm0\n xorps %xmm1, %xmm1\n"
        "mov $0x3f800000, %eax\n movd %eax, %xmm1",
        "divss %xmm0, %xmm1");
PROVOKE(set_ts, "mov %cr0, " AX "\n or $8, " AX, "mov " AX ", %cr0");
PROVOKE(clts, "", "clts");

#define NM(stub, name, text) { CODE(stub), .id = name, .vector = EXC_NM, .rule = text }

static const struct trap_case nm_cases[] = {
    NM(nm_fnop, "nm.x87", "x87 with CR0.TS set (SDM 3A 2.5)"),
    NM(nm_paddb, "nm.mmx", "MMX with CR0.TS set"),
    NM(nm_movaps, "nm.sse", "SSE with CR0.TS set"),
};
static const struct trap_case nm_once = { CODE(nm_fnop), .id = "nm.once", .nothing = true,
                                          .rule = "delivering #NM cleared TS (Xen)" };
static const struct trap_case nm_cleared = { CODE(nm_fnop), .id = "nm.taskswitch-0",
                                             .nothing = true,
                                             .rule = "fpu_taskswitch(0) clears TS" };
static const struct trap_case nm_after_cr0 =
    NM(nm_fnop, "nm.mov-cr0", "TS set by mov to CR0, emulated");
static const struct trap_case nm_after_clts = { CODE(nm_fnop), .id = "nm.clts", .nothing = true,
                                                .rule = "TS cleared by clts, emulated" };

static const struct trap_case mf_case = { CODE(mf_fwait), .id = "mf.fwait", .vector = EXC_MF,
                                          .rule = "fwait meets an unmasked 1/0 (SDM 3A 6.15 #MF)" };
static const struct trap_case xm_case = { CODE(xm_divss), .id = "xm.divss", .vector = EXC_XM,
                                          .quirk = "no trap",
                                          .rule = "unmasked SSE 1/0 (SDM 3A 6.15 #XM)" };

void test_fpu(void)
{
    struct trap_seen seen;

    for (size_t i = 0; i < ARRAY_SIZE(nm_cases); i++) {
        hv_fpu_taskswitch(true);
        check_trap_case(&nm_cases[i], &seen);
    }
    check_trap_case(&nm_once, &seen);
    hv_fpu_taskswitch(true);
    hv_fpu_taskswitch(false);
    check_trap_case(&nm_cleared, &seen);
    provoke(set_ts, &seen);
    check_trap_case(&nm_after_cr0, &seen);
    hv_fpu_taskswitch(true);
    provoke(clts, &seen);
    check_trap_case(&nm_after_clts, &seen);
    hv_fpu_taskswitch(false);
    check_trap_case(&mf_case, &seen);
    __asm__ volatile("fninit");
    check_trap_case(&xm_case, &seen);
}
