/* Provoking, describing, comparing. */
#include "case.h"

#include "console.h"
#include "string.h"
#include "user.h"

static void call(void *start)
{
    ((void (*)(void))start)();
}

void provoke(const char *start, struct trap_seen *seen)
{
    trap_catch(call, (void *)(word)start, seen);
}

/* "#GP(0) at", "#BP after", "#PF(2) at, cr2 1000": the same words for what is wanted and seen. */
static void describe(char *text, size_t size, word vector, word error, const char *where, word cr2)
{
    char what[32];

    trap_describe(what, sizeof(what), vector, error);
    if (vector == EXC_PF)
        format(text, size, "%s %s cr2 %lx", what, where, cr2);
    else
        format(text, size, "%s %s", what, where);
}

/* base is where the code ran: its start, or USER_CODE for a copy. */
static void describe_seen(char *text, size_t size, const struct trap_case *c,
                          const struct trap_seen *seen, word base)
{
    word offset = seen->regs.ip - base;
    char where[32];

    if (!seen->trapped) {
        format(text, size, "no trap");
        return;
    }
    if (offset == (word)(c->at - c->start))
        format(where, sizeof(where), "at");
    else if (offset == (word)(c->end - c->start))
        format(where, sizeof(where), "after");
    else
        format(where, sizeof(where), "ip %lx", seen->regs.ip);
    describe(text, size, seen->regs.vector, seen->regs.error, where, seen->cr2);
}

static void report(const struct trap_case *c, const struct trap_seen *seen, word base)
{
    char want[64], got[64];

    if (c->nothing)
        format(want, sizeof(want), "no trap");
    else
        describe(want, sizeof(want), c->vector, c->error, c->where == AT ? "at" : "after", c->cr2);
    describe_seen(got, sizeof(got), c, seen, base);
    if (c->quirk && starts_with(got, c->quirk))
        check_skip(c->id, c->rule, got);
    else
        check_text(c->id, c->rule, want, got);
}

void check_trap_case(const struct trap_case *c, struct trap_seen *seen)
{
    seen->trapped = false;
    if (!check_selected(c->id))
        return;
    provoke(c->start, seen);
    report(c, seen, (word)c->start);
}

/* A program that did not trap has run into the ud2 behind it. */
void check_user_case(const struct trap_case *c, struct trap_seen *seen)
{
    struct regs regs;

    seen->trapped = false;
    if (!check_selected(c->id))
        return;
    user_load(c->start, c->stop, &regs);
    user_continue(&regs, seen);
    if (seen->regs.vector == EXC_UD && seen->regs.ip - USER_CODE == (word)(c->end - c->start) &&
        c->end != c->at)
        seen->trapped = false;
    report(c, seen, USER_CODE);
}
