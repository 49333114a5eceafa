/* Checks, their lines, and the verdict. */
#include "report.h"

#include "console.h"
#include "hypercall.h"
#include "string.h"

static unsigned nr_checks, nr_failed;
static const char *only = "";

void check_only(const char *prefix)
{
    only = prefix;
}

bool check_selected(const char *id)
{
    return starts_with(id, only);
}

static void line(const char *verdict, const char *id, const char *seen, const char *rule)
{
    print("%-4s %-20s %-28s  %s\n", verdict, id, seen, rule);
}

void check_text(const char *id, const char *rule, const char *want, const char *got)
{
    char both[96];

    if (!check_selected(id))
        return;
    nr_checks++;
    if (strlen(want) == strlen(got) && !memcmp(want, got, strlen(want))) {
        line("ok", id, got, rule);
        return;
    }
    nr_failed++;
    format(both, sizeof(both), "want %s, got %s", want, got);
    line("FAIL", id, both, rule);
}

void check_equal(const char *id, const char *rule, u64 want, u64 got)
{
    char want_text[24], got_text[24];

    format(want_text, sizeof(want_text), "%llx", (unsigned long long)want);
    format(got_text, sizeof(got_text), "%llx", (unsigned long long)got);
    check_text(id, rule, want_text, got_text);
}

void check_true(const char *id, const char *rule, bool got)
{
    check_text(id, rule, "yes", got ? "yes" : "no");
}

void check_skip(const char *id, const char *rule, const char *why)
{
    if (check_selected(id))
        line("skip", id, why, rule);
}

static NORETURN void shutdown(u32 reason)
{
    for (;;)
        hv_sched_shutdown(reason);
}

void panic(const char *fmt, ...)
{
    char why[256];
    va_list args;

    va_start(args, fmt);
    vformat(why, sizeof(why), fmt, args);
    va_end(args);
    print("ring1: FAIL %s: %s\n", guest_name, why);
    shutdown(SHUTDOWN_crash);
}

void report_and_exit(void)
{
    if (nr_failed)
        print("ring1: FAIL %s: %u of %u checks failed\n", guest_name, nr_failed, nr_checks);
    else
        print("ring1: PASS %s (%u checks)\n", guest_name, nr_checks);
    shutdown(SHUTDOWN_poweroff);
}

void power_off(void)
{
    shutdown(SHUTDOWN_poweroff);
}
