/*
 * Exceptions without an error code, raised by the kernel (SDM 3A, 6.15).
 *
 * Faults leave the instruction pointer at the instruction, traps behind it. Xen takes them in its
 * own IDT and builds the frame for the guest's (create_bounce_frame, arch/x86/x86_64/entry.S).
 */
#include "case.h"
#include "hypercall.h"

PROVOKE(de_zero, "xor %edx, %edx\n mov $1, %eax\n xor %ecx, %ecx", "div %ecx");
PROVOKE(de_overflow, "mov $1, %edx\n xor %eax, %eax\n mov $1, %ecx", "div %ecx");
PROVOKE(bp_int3, "", "int3");
PROVOKE(bp_int_3, "", ".byte 0xcd, 3");
PROVOKE(of_int_4, "", "int $4");
PROVOKE(into, "mov $0x7fffffff, %eax\n add $1, %eax", ".byte 0xce");
PROVOKE(into_clear, "xor %eax, %eax", ".byte 0xce");
PROVOKE(bound, "sub $8, " SP "\n movl $1, (" SP ")\n movl $2, 4(" SP ")\n mov $3, %eax",
        ".byte 0x62, 0x04, 0x24\n add $8, " SP);
PROVOKE(ud2, "", "ud2");
PROVOKE(ud_lock_nop, "", ".byte 0xf0, 0x90");
PROVOKE(ud_undefined, "", ".byte 0x0f, 0xff, 0xc0");

static const struct trap_case cases[] = {
    { CODE(de_zero), .id = "de.zero", .vector = EXC_DE, .rule = "div by 0 faults (SDM 2 DIV)" },
    { CODE(de_overflow), .id = "de.overflow", .vector = EXC_DE,
      .rule = "so does a quotient of more than 32 bits" },
    { CODE(bp_int3), .id = "bp.int3", .vector = EXC_BP, .where = AFTER,
      .rule = "int3 is a trap: ip behind it (SDM 3A 6.15)" },
    { CODE(bp_int_3), .id = "bp.int-3", .vector = EXC_BP, .where = AFTER,
      .rule = "int 3 in two bytes, gate DPL 3" },
    { CODE(of_int_4), .id = "of.int-4", .vector = EXC_OF, .where = AFTER,
      .rule = "int 4, gate DPL 3, needs no overflow" },
#if IS_64
    { CODE(into), .id = "ud.into", .vector = EXC_UD, .rule = "into is undefined in 64-bit mode" },
    { CODE(bound), .id = "ud.bound", .vector = EXC_UD, .rule = "so is bound" },
#else
    { CODE(into), .id = "of.into", .vector = EXC_OF, .where = AFTER,
      .rule = "into with OF set traps (SDM 2 INTO)" },
    { CODE(into_clear), .id = "of.into-clear", .nothing = true, .rule = "and is a nop without" },
    { CODE(bound), .id = "br.bound", .vector = EXC_BR, .rule = "3 is not in [1, 2] (SDM 2 BOUND)" },
#endif
    { CODE(ud2), .id = "ud.ud2", .vector = EXC_UD, .rule = "ud2 faults (SDM 2 UD)" },
    { CODE(ud_lock_nop), .id = "ud.lock", .vector = EXC_UD,
      .rule = "lock in front of what takes none (SDM 2 LOCK)" },
    { CODE(ud_undefined), .id = "ud.ud0", .vector = EXC_UD, .rule = "opcode 0f ff (SDM 2 UD)" },
};

/*
 * Single-step. popf sets TF; the trap comes after the instruction that follows (SDM 3B 17.3.1.4),
 * between two iterations if it is a repeated string instruction. DR6.BS says why, and the handler
 * runs with TF clear while the frame shows it set.
 */
#define SET_TF "pushf\n orl $0x100, (" SP ")\n"
extern char tf_bytes[];
char tf_bytes[16];
PROVOKE(tf_nop, SET_TF "popf", "nop");
PROVOKE(tf_rep, "mov $tf_bytes, " SI "\n mov $tf_bytes + 8, " DI "\n mov $4, %ecx\n" SET_TF "popf",
        "rep movsb");

static const struct trap_case tf_nop_case = {
    CODE(tf_nop), .id = "db.tf", .vector = EXC_DB, .where = AFTER,
    .rule = "TF traps after the next instruction (SDM 3B 17.3.1.4)",
};
static const struct trap_case tf_rep_case = {
    CODE(tf_rep), .id = "db.tf-rep", .vector = EXC_DB, .where = AT,
    .rule = "rep movsb: after one iteration, ip still at it",
};

#define DR6_BS (1u << 14)

static void test_single_step(void)
{
    struct trap_seen seen;

    hv_set_debugreg(6, 0xffff0ff0);
    check_trap_case(&tf_nop_case, &seen);
    check_equal("db.dr6", "DR6.BS is set (SDM 3B 17.2.3)", DR6_BS, hv_get_debugreg(6) & DR6_BS);
    check_true("db.frame-tf", "the frame's flags have TF", seen.regs.flags & FLAG_TF);
    check_trap_case(&tf_rep_case, &seen);
    check_equal("db.tf-rep-count", "3 of 4 iterations left", 3, seen.regs.cx);
}

/* What every frame says about the interrupted kernel. */
static void test_frame(void)
{
    struct trap_seen seen;

    provoke(ud2, &seen);
    check_equal("frame.cs", "CS of the interrupted kernel; 64-bit: RPL cleared",
                FRAME_KERNEL_CS, seen.regs.cs);
#if IS_64
    check_equal("frame.ss", "SS of the interrupted kernel", FLAT_KERNEL_SS, seen.regs.ss);
#endif
    check_equal("frame.iopl", "IOPL reads 0 without vm_assist architectural_iopl", 0,
                seen.regs.flags & FLAG_IOPL);
    check_equal("frame.mask", "saved_mask is the upcall mask, set now", 1, seen.regs.saved_mask);
    check_equal("frame.if", "and IF is its opposite", 0, seen.regs.flags & FLAG_IF);
}

/* vm_assist architectural_iopl makes frames show the virtual IOPL where hardware has its own. */
static void test_architectural_iopl(void)
{
    struct trap_seen seen;

    check_equal("frame.iopl-assist", "vm_assist architectural_iopl can be had", 0,
                (u64)hv_vm_assist(VMASST_CMD_enable, VMASST_TYPE_architectural_iopl));
    hv_set_iopl(1);
    provoke(ud2, &seen);
    check_equal("frame.iopl-1", "and then the frame shows the virtual IOPL", 1u << 12,
                seen.regs.flags & FLAG_IOPL);
    hv_set_iopl(0);
    hv_vm_assist(VMASST_CMD_disable, VMASST_TYPE_architectural_iopl);
}

void test_exceptions(void)
{
    CHECK_ALL(check_trap_case, cases);
    test_single_step();
    test_frame();
    test_architectural_iopl();
}
