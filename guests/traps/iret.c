/*
 * The iret hypercall when what it is to load cannot be loaded: the fault belongs to the context that
 * was the target, and the kernel finds it in a frame as if user mode had faulted there.
 */
#include "case.h"
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
    char want[32], got[32];
    struct trap_seen seen;
    struct regs regs;

    if (!check_selected(bad->id))
        return;
    user_load(iret_ud, iret_ud_stop, &regs);
    regs.cs = bad->cs;
    regs.ss = bad->ss;
    user_continue(&regs, &seen);
    trap_describe(want, sizeof(want), bad->vector, bad->error);
    trap_describe(got, sizeof(got), seen.regs.vector, seen.regs.error);
    check_text(bad->id, bad->rule, want, got);
}

void test_iret(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        check_bad_iret(&cases[i]);
    events_disable();
}
