/*
 * `int n` from the kernel.
 *
 * Xen's own IDT has no gate for it, so the processor raises #GP(n * 8 + 2), and Xen looks at the
 * guest's table: with a gate whose DPL admits the caller it goes there with ip behind the
 * instruction, else the #GP is the guest's (do_general_protection, arch/x86/traps.c). A kernel
 * counts as ring 1 in every width (public/arch-x86/xen.h, at TI_GET_DPL).
 */
#include "case.h"
#include "events.h"
#include "hypercall.h"

PROVOKE(int_0, "", "int $0");
PROVOKE(int_3, "", "int3");
PROVOKE(int_30, "", "int $0x30");
PROVOKE(int_31, "", "int $0x31");
PROVOKE(int_32, "", "int $0x32");
PROVOKE(int_ff, "", "int $0xff");
PROVOKE(int_80, "", "int $0x80");
PROVOKE(int_13, "", "int $13");

/*
 * QEMU's long mode gives n * 16 + 2 instead, its index of an 8-byte slot, so a Xen under it takes
 * n for 2n. That leaves int 0 to check there what Xen does, and int 0x80, which has a gate.
 */
#define REFUSED(stub, n, qemu, name, text)                                                         \
    { CODE(stub), .id = name, .vector = EXC_GP, .error = (n) * 8 + 2, .quirk = qemu, .rule = text }
#define DELIVERED(stub, n, qemu, name, text)                                                       \
    { CODE(stub), .id = name, .vector = n, .where = AFTER, .quirk = qemu, .rule = text }

static const struct trap_case no_gate[] = {
    REFUSED(int_30, 0x30, "#GP(302)", "int.no-gate", "no gate: #GP(n * 8 + 2)"),
    REFUSED(int_80, 0x80, NULL, "int80.no-gate", "so for int 0x80, which Xen treats apart"),
    REFUSED(int_0, 0, NULL, "int.0-dpl-0", "int 0 against #DE's own gate, DPL 0"),
    REFUSED(int_13, 13, "#GP(d2)", "int.13-dpl-0", "int 13 against #GP's own gate, DPL 0"),
};
static const struct trap_case with_gate[] = {
    DELIVERED(int_0, 0, NULL, "int.0-dpl-1", "DPL 1 is for the kernel: ip behind the instruction"),
    REFUSED(int_30, 0x30, "#GP(302)", "int.dpl-0", "DPL 0 is for nobody"),
    DELIVERED(int_31, 0x31, "#GP(312)", "int.dpl-1", "DPL 1 is for the kernel"),
    DELIVERED(int_32, 0x32, "#GP(322)", "int.dpl-3", "DPL 3 too"),
    DELIVERED(int_ff, 0xff, "#GP(ff2)", "int.ff", "the last vector"),
    DELIVERED(int_80, 0x80, NULL, "int80.dpl-3", "int 0x80 with DPL 3"),
};

static u8 mask_at_entry(const char *stub, u8 *saved)
{
    struct trap_seen seen;

    events_enable();
    provoke(stub, &seen);
    events_disable();
    *saved = seen.regs.saved_mask;
    return seen.mask;
}

/* Flag 4 of a trap_info masks events on entry; the frame keeps how the mask was. */
static void test_mask_flag(void)
{
    struct trap_seen seen;
    u8 saved;

    check_equal("gate.unmasked", "a gate without flag 4 leaves events enabled", 0,
                mask_at_entry(int_3, &saved));
    trap_set_gate(3, TI_DPL(3) | TI_MASK_EVENTS);
    check_equal("gate.masks", "one with it masks them on entry", 1, mask_at_entry(int_3, &saved));
    check_equal("gate.saved-mask", "and the frame has the mask from before", 0, saved);
    events_enable();
    provoke(int_3, &seen);
    check_true("gate.frame-if", "with IF set to match", seen.regs.flags & FLAG_IF);
    check_equal("gate.iret-mask", "the iret hypercall sets the mask from IF", 0,
                vcpu_info()->evtchn_upcall_mask);
    events_disable();
}

void test_soft_interrupts(void)
{
    CHECK_ALL(check_trap_case, no_gate);
    trap_set_gate(0, TI_DPL(1));
    trap_set_gate(0x30, TI_DPL(0));
    trap_set_gate(0x31, TI_DPL(1));
    trap_set_gate(0x32, TI_DPL(3));
    trap_set_gate(0xff, TI_DPL(3));
    trap_set_gate(0x80, TI_DPL(3));
    CHECK_ALL(check_trap_case, with_gate);
    test_mask_flag();
    traps_reload();
}
