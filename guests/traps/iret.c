/*
 * Ways back. The iret hypercall, when what it is to load cannot be loaded: the fault belongs to
 * the context that was the target, and the kernel finds it in a frame as if user mode had faulted
 * there. And the processor's own iret, which needs no Xen as long as no privilege is gained.
 */
#include "case.h"
#include "console.h"
#include "events.h"
#include "hypercall.h"
#include "user.h"

PROVOKE_USER(iret_ud, "", "ud2");

struct bad_iret {
    const char *id, *rule;
    u16 cs, ss;
    word vector, error;
};

static const struct bad_iret cases[] = {
    { "iret.cs-empty", "an empty descriptor as CS", 0x0323, FLAT_USER_SS, EXC_GP, 0x320 },
    { "iret.ss-empty", "as SS", FLAT_USER_CS, 0x0323, EXC_GP, 0x320 },
    { "iret.cs-data", "a data segment as CS", FLAT_USER_SS, FLAT_USER_SS, EXC_GP,
      FLAT_USER_SS & ~3 },
};

static void check_bad_iret(const struct bad_iret *bad)
{
    char want[64], got[64];
    struct trap_seen seen;
    struct regs regs;

    if (!check_selected(bad->id))
        return;
    user_load(iret_ud, iret_ud_stop, &regs);
    regs.cs = bad->cs;
    regs.ss = bad->ss;
    user_continue(&regs, &seen);
    format(want, sizeof(want), "vector %lx error %lx cs %x ip %lx", bad->vector, bad->error,
           bad->cs, (word)USER_CODE);
    format(got, sizeof(got), "vector %lx error %lx cs %x ip %lx", seen.regs.vector,
           seen.regs.error, seen.regs.cs, seen.regs.ip);
    check_text(bad->id, bad->rule, want, got);
}

/* Kernel to kernel. On 64 bits both selectors are ring 3's anyway. */
#if IS_64
PROVOKE(native_iret,
        "mov %rsp, %rax\n push $0xe02b\n push %rax\n pushf\n push $0xe033\n push $native_iret_end",
        "iretq");
#else
PROVOKE(native_iret, "pushf\n push %cs\n push $native_iret_end", "iret");
#endif

static const struct trap_case native = {
    CODE(native_iret), .id = "iret.native", .nothing = true,
    .rule = "the processor's own iret works within the kernel",
};

#if !IS_64
/* Ring 1 to ring 3: the processor checks only that privilege is not gained (SDM 3A 6.12). */
static void native_iret_to_user(void *regs_)
{
    struct regs *regs = regs_;

    __asm__ volatile("push %0\n push %1\n push %2\n push %3\n push %4\n iret" ::"r"(regs->ss),
                     "r"(regs->sp), "r"(regs->flags), "r"((word)regs->cs), "r"(regs->ip)
                     : "memory");
}

static void test_native_iret_to_user(void)
{
    struct trap_seen seen;
    struct regs regs;

    user_load(iret_ud, iret_ud_stop, &regs);
    trap_catch(native_iret_to_user, &regs, &seen);
    check_true("iret.native-user", "and out of it into user mode",
               seen.trapped && regs_from_user(&seen.regs) && seen.regs.ip == USER_CODE);
}
#endif

#if IS_64
/*
 * The frame of the iret hypercall has flags of its own. VGCF_in_syscall promises that user mode came
 * in by syscall and so expects nothing of rcx, r11 and the segments: Xen may leave by sysret, which
 * puts the address into rcx and the flags into r11 (public/arch-x86/xen-x86_64.h).
 */
#define VGCF_in_syscall 256

PROVOKE_USER(iret_int_80, "", "int $0x80");

static void iret_by_sysret(void *regs_)
{
    struct regs *regs = regs_;
    /* Of CS only the RPL counts, which says user mode. */
    word frame[9] = { 0xa0a0, 0x1111, 0xc0c0, VGCF_in_syscall, regs->ip, 3, regs->flags, regs->sp,
                      0 };

    __asm__ volatile("mov %0, %%rsp\n mov %1, %%eax\n syscall" ::"r"(frame),
                     "i"(__HYPERVISOR_iret)
                     : "memory");
}

static void test_in_syscall(void)
{
    struct trap_seen seen;
    struct regs regs;

    trap_set_gate(0x80, TI_DPL(3));
    user_load(iret_int_80, iret_int_80_stop, &regs);
    trap_catch(iret_by_sysret, &regs, &seen);
    traps_reload();
    check_equal("iret.in-syscall", "VGCF_in_syscall: rax as in the frame", 0xa0a0, seen.regs.ax);
    check_equal("iret.sysret-rcx", "rcx is the address", USER_CODE, seen.regs.cx);
    check_equal("iret.sysret-cs", "and CS the flat one, whatever the frame has", FLAT_USER_CS,
                seen.regs.cs);
}
#endif

void test_iret(void)
{
    struct trap_seen seen;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        check_bad_iret(&cases[i]);
    check_trap_case(&native, &seen);
#if IS_64
    test_in_syscall();
#else
    test_native_iret_to_user();
#endif
    events_disable();
}
