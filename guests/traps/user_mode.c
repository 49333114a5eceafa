/*
 * Traps out of user mode.
 *
 * Xen enters the kernel on the stack that stack_switch named, and the frame says where user mode
 * was, with its own selectors: on 64 bits a kernel tells the two modes apart by the RPL of CS
 * alone.
 */
#include "case.h"
#include "console.h"
#include "events.h"
#include "hypercall.h"
#include "string.h"
#include "user.h"

PROVOKE_USER(user_ud, "", "ud2");
PROVOKE_USER(user_de, "xor %ecx, %ecx", "div %ecx");
PROVOKE_USER(user_int3, "", "int3");
PROVOKE_USER(user_hlt, "", "hlt");
PROVOKE_USER(user_cli, "", "cli");
PROVOKE_USER(user_in, "mov $0x2f0, %edx", "in %dx, %al");
PROVOKE_USER(user_mov_cr3, "", "mov %cr3, " AX);
PROVOKE_USER(user_rdmsr, "mov $0xc0000080, %ecx", "rdmsr");
PROVOKE_USER(user_read, "mov $0x20000000, %eax", "mov (" AX "), %ecx");
PROVOKE_USER(user_write, "mov $0x20000000, %eax", "mov %ecx, (" AX ")");
PROVOKE_USER(user_write_code, "mov $0x10000000, %eax", "mov %ecx, (" AX ")");
PROVOKE_USER(user_kernel, "mov $kernel_start, " AX, "mov (" AX "), %ecx");
PROVOKE_USER(user_kernel_write, "mov $kernel_start, " AX, "mov %ecx, (" AX ")");
PROVOKE_USER(user_tf, "pushf\n orl $0x100, (" SP ")\n popf", "nop");
PROVOKE_USER(user_int_0, "", "int $0");
PROVOKE_USER(user_int_60, "", "int $0x60");
PROVOKE_USER(user_int_61, "", "int $0x61");
PROVOKE_USER(user_int_62, "", "int $0x62");
PROVOKE_USER(user_int_80, "", "int $0x80");
PROVOKE_USER(user_int_82, "mov $17, %eax\n xor %ebx, %ebx", "int $0x82");
PROVOKE_USER(user_syscall, "mov $17, %eax\n xor %edi, %edi", "syscall");
PROVOKE_USER(user_sysenter, "mov $0x1234, %eax", "sysenter");
PROVOKE_USER(user_ac, "pushf\n orl $0x40000, (" SP ")\n popf", "mov -7(" SP "), %eax");

extern char kernel_start[];

#define USER(stub, vec, err, pos, name, text)                                                      \
    { CODE(stub), .id = name, .vector = vec, .error = err, .where = pos, .rule = text }
#define USER_PF(stub, err, address, name, text)                                                    \
    { CODE(stub), .id = name, .vector = EXC_PF, .error = err, .cr2 = (word)(address), .rule = text }

/* QEMU's long mode gives #GP(n * 16 + 2): see soft_interrupts.c. */
#define USER_INT(stub, vec, err, pos, qemu, name, text)                                            \
    { CODE(stub), .id = name, .vector = vec, .error = err, .where = pos, .quirk = qemu,              \
      .rule = text }

static const struct trap_case cases[] = {
    USER(user_ud, EXC_UD, 0, AT, "user.ud", "ud2 in user mode reaches the kernel"),
    USER(user_de, EXC_DE, 0, AT, "user.de", "a division by 0"),
    USER(user_int3, EXC_BP, 0, AFTER, "user.int3", "int3"),
    USER(user_tf, EXC_DB, 0, AFTER, "user.tf", "single-step"),
    USER(user_hlt, EXC_GP, 0, AT, "user.hlt", "hlt: #GP(0)"),
    USER(user_cli, EXC_GP, 0, AT, "user.cli", "cli: #GP(0)"),
    USER(user_in, EXC_GP, 0, AT, "user.in", "in: #GP(0)"),
    USER(user_mov_cr3, EXC_GP, 0, AT, "user.mov-cr3", "control registers are not for user mode"),
    USER(user_rdmsr, EXC_GP, 0, AT, "user.rdmsr", "nor are MSRs"),
    USER_PF(user_read, 4, 0x20000000, "user.pf-read", "a read, not present: U"),
    USER_PF(user_write, 6, 0x20000000, "user.pf-write", "a write, not present: U and W"),
    USER_PF(user_write_code, 7, USER_CODE, "user.pf-write-ro", "a write, read-only: U, W and P"),
    /* On 64 bits user mode has a table in which the kernel is not present. */
    USER_PF(user_kernel, IS_64 ? 4 : 5, kernel_start, "user.pf-kernel",
            "the kernel's memory; 64-bit: not even present"),
    USER_PF(user_kernel_write, IS_64 ? 6 : 7, kernel_start, "user.pf-kernel-w", "to write there"),
    USER(user_int_0, EXC_GP, 2, AT, "user.int-0", "int 0 against #DE's gate, DPL 1"),
    USER_INT(user_int_60, EXC_GP, 0x302, AT, "#GP(602)", "user.int-no-gate",
             "int n without a gate"),
    USER_INT(user_int_61, EXC_GP, 0x30a, AT, "#GP(612)", "user.int-dpl-1",
             "with DPL 1: not for user mode"),
    USER_INT(user_int_62, 0x62, 0, AFTER, "#GP(622)", "user.int-dpl-3", "with DPL 3: delivered"),
    USER(user_int_80, 0x80, 0, AFTER, "user.int80", "int 0x80, the 32-bit system call"),
    USER_INT(user_int_82, EXC_GP, 0x412, AT, "#OF after", "user.int82", "int 0x82 is for kernels"),
#if IS_64
    USER(user_syscall, VECTOR_SYSCALL, 0, AFTER, "user.syscall", "syscall reaches its callback"),
#else
    USER(user_syscall, EXC_UD, 0, AT, "user.syscall", "syscall is undefined in a 32-bit segment"),
#endif
    { CODE(user_ac), .id = "user.ac", .vector = EXC_AC, .quirk = "no trap",
      .rule = "unaligned with EFLAGS.AC (SDM 3A 6.15 #AC)" },
};

static void test_frame(void)
{
    struct trap_seen seen;
    struct regs regs;

    user_load(user_ud, user_ud_stop, &regs);
    user_continue(&regs, &seen);
    check_equal("user.cs", "the frame has user mode's CS", FLAT_USER_CS, seen.regs.cs);
    check_equal("user.ss", "its SS", FLAT_USER_SS, seen.regs.ss & 0xffff);
    check_equal("user.sp", "and its stack pointer", USER_STACK_TOP, seen.regs.sp);
    check_equal("user.kernel-stack", "pushed from the top of stack_switch's stack",
                (word)user_trap_stack_top, seen.regs_at + sizeof(struct regs));
}

/* Every register there and back: user mode changes them all between two system calls. */
PROVOKE_USER(user_registers,
#if IS_64
             "int $0x80\n"
             "not %rax\n not %rbx\n not %rcx\n not %rdx\n not %rsi\n not %rdi\n not %rbp\n"
             "not %r8\n not %r9\n not %r10\n not %r11\n"
             "not %r12\n not %r13\n not %r14\n not %r15\n",
#else
             "int $0x80\n"
             "not %eax\n not %ebx\n not %ecx\n not %edx\n not %esi\n not %edi\n not %ebp\n",
#endif
             "int $0x80");

#if IS_64
#define NR_GPRS 15
#else
#define NR_GPRS 7
#endif

/* Both orders of struct regs begin with the general registers. */
static word *gprs(struct regs *regs)
{
    return (word *)regs;
}

static void test_registers(void)
{
    struct trap_seen first, second;
    bool there = true, back = true;
    struct regs regs;

    user_load(user_registers, user_registers_stop, &regs);
    for (unsigned i = 0; i < NR_GPRS; i++)
        gprs(&regs)[i] = 0x1000001ul * (i + 1);
    user_continue(&regs, &first);
    for (unsigned i = 0; i < NR_GPRS; i++)
        there &= gprs(&first.regs)[i] == 0x1000001ul * (i + 1);
    user_continue(&first.regs, &second);
    for (unsigned i = 0; i < NR_GPRS; i++)
        back &= gprs(&second.regs)[i] == ~(0x1000001ul * (i + 1));
    check_true("user.regs-in", "iret gives user mode every register", there);
    check_true("user.regs-out", "and a second system call brings every one back", back);
    check_equal("user.two-calls", "from behind the second int", USER_CODE,
                second.regs.ip - (word)(user_registers_end - user_registers));
}

/* User mode's popf cannot change IF (SDM 2 POPF): the kernel's events stay enabled. */
PROVOKE_USER(user_popf, "pushf\n andl $~0x200, (" SP ")\n popf", "int $0x80");

static void test_flags(void)
{
    struct trap_seen seen;
    struct regs regs;

    user_load(user_popf, user_popf_stop, &regs);
    user_continue(&regs, &seen);
    check_true("user.popf-if", "popf in user mode leaves IF set", seen.regs.flags & FLAG_IF);
    check_equal("user.mask", "and events enabled", 0, seen.regs.saved_mask);
    events_disable();
}

/* An event that is due when user mode is entered calls the kernel before its first instruction. */
static struct trap_seen interrupted;

static void on_event(evtchn_port_t port, struct regs *regs)
{
    (void)port;
    interrupted.trapped = true;
    interrupted.regs = *regs;
}

static void test_event(void)
{
    struct trap_seen seen;
    struct regs regs;
    evtchn_port_t port;

    port = event_bind_ipi(on_event);
    events_disable();
    hv_evtchn_send(port);
    user_load(user_ud, user_ud_stop, &regs);
    user_continue(&regs, &seen);
    events_disable();
    check_true("user.event", "an event due at iret to user mode interrupts it there",
               interrupted.trapped && regs_from_user(&interrupted.regs) &&
                   interrupted.regs.ip == USER_CODE);
    check_equal("user.event-cs", "with user mode's CS in the frame", FLAT_USER_CS,
                interrupted.regs.cs);
    event_close(port);
}

#if !IS_64
/*
 * int 0x80 leads straight to the kernel, by a gate in the processor's own table
 * (init_int80_direct_trap in arch/x86/x86_32/traps.c of Xen up to 4.2): the frame is the processor's,
 * and the event mask, which Xen would have put into it, is not. No processor masks events, so a
 * gate that wants them masked is bounced as any other.
 */
static void test_direct(void)
{
    struct trap_seen seen;
    struct regs regs;

    user_load(user_int_80, user_int_80_stop, &regs);
    regs.flags &= ~(word)FLAG_IF;
    user_continue(&regs, &seen);
    check_equal("direct.mask", "int 0x80 does not pass Xen: no mask in its frame", 0,
                seen.regs.saved_mask);
    check_true("direct.if", "and IF as the processor has it", seen.regs.flags & FLAG_IF);
    check_equal("direct.mask-kept", "events stay masked", 1, seen.mask);
    check_equal("direct.stack", "on the stack of stack_switch", (word)user_trap_stack_top,
                seen.regs_at + sizeof(struct regs));
    user_load(user_int_62, user_int_62_stop, &regs);
    regs.flags &= ~(word)FLAG_IF;
    user_continue(&regs, &seen);
    check_equal("direct.not-62", "any other int n does", 1, seen.regs.saved_mask);
    trap_set_gate(0x80, TI_DPL(3) | TI_MASK_EVENTS);
    user_load(user_int_80, user_int_80_stop, &regs);
    regs.flags &= ~(word)FLAG_IF;
    user_continue(&regs, &seen);
    check_equal("direct.not-masking", "and int 0x80 when its gate masks events", 1,
                seen.regs.saved_mask);
    events_disable();
}
#endif

#if IS_64
/* syscall puts the return address into rcx and the flags into r11 (SDM 2 SYSCALL); both stand in
 * the frame as well. */
static void test_syscall(void)
{
    struct trap_seen seen;
    struct regs regs;

    user_load(user_syscall, user_syscall_stop, &regs);
    user_continue(&regs, &seen);
    check_equal("user.syscall-rcx", "rcx has the return address", seen.regs.ip, seen.regs.cx);
    check_equal("user.syscall-r11", "r11 the flags", seen.regs.flags & ~(u64)FLAG_IF,
                seen.regs.r11 & ~(u64)FLAG_IF);
    check_equal("user.syscall-cs", "CS is user mode's", FLAT_USER_CS, seen.regs.cs);
}

/* Xen swaps the GS bases between the modes. */
PROVOKE_USER(user_gs, "mov %gs:0, %rax", "int $0x80");

static void test_gs(void)
{
    static word kernels = 0x6b6b;
    struct trap_seen seen;
    struct regs regs;
    word here;

    user_data[0] = 0x7575;
    hv_set_segment_base(SEGBASE_GS_KERNEL, (word)&kernels);
    hv_set_segment_base(SEGBASE_GS_USER, USER_DATA);
    user_load(user_gs, user_gs_stop, &regs);
    user_continue(&regs, &seen);
    __asm__ volatile("mov %%gs:0, %0" : "=r"(here));
    check_equal("user.gs", "user mode has SEGBASE_GS_USER", 0x7575, seen.regs.ax);
    check_equal("user.gs-kernel", "and the kernel its own again", 0x6b6b, here);
    hv_set_segment_base(SEGBASE_GS_KERNEL, 0);
}
#endif

/*
 * sysenter: without a callback it is #GP(0); with one Xen enters it with what the instruction
 * leaves of user mode, which is nothing: ip 0, sp 0 (pv/entry: sysenter_entry).
 */
static void test_sysenter(void)
{
    struct trap_seen seen;
    struct regs regs;

    user_load(user_sysenter, user_sysenter_stop, &regs);
    user_continue(&regs, &seen);
    check_equal("user.sysenter-gp", "sysenter without a callback is #GP", EXC_GP, seen.regs.vector);
    check_equal("user.sysenter-gp-0", "with error code 0", 0, seen.regs.error);
    traps_register_sysenter();
    user_load(user_sysenter, user_sysenter_stop, &regs);
    user_continue(&regs, &seen);
    check_equal("user.sysenter", "with one: the callback", VECTOR_SYSENTER, seen.regs.vector);
    check_equal("user.sysenter-ip", "where it came from is lost", 0, seen.regs.ip);
    check_equal("user.sysenter-ax", "registers are kept", 0x1234, seen.regs.ax);
    check_equal("user.sysenter-user", "and the frame says user mode", 3, seen.regs.cs & 3);
}

void test_user(void)
{
    trap_set_gate(0, TI_DPL(1));
    trap_set_gate(0x61, TI_DPL(1));
    trap_set_gate(0x62, TI_DPL(3));
    trap_set_gate(0x80, TI_DPL(3));
    CHECK_ALL(check_user_case, cases);
    test_frame();
    test_registers();
    test_flags();
    test_event();
#if !IS_64
    test_direct();
#else
    test_syscall();
    test_gs();
#endif
    test_sysenter();
    traps_reload();
}
