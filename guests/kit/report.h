/*
 * How a guest says whether all is well. guests/__init__.py documents the last line:
 *
 *   ring1: PASS <name> (<n> checks)
 *   ring1: FAIL <name>: <why>
 *
 * and each check before it prints one line, `ok`, `skip` or `FAIL`, its id, what was seen, and the
 * rule it is about.
 */
#ifndef KIT_REPORT_H
#define KIT_REPORT_H

#include "traps.h"

/* The guest's own name, in its main file. */
extern const char guest_name[];

/* Something went wrong that no check foresaw: say what, and end the domain as crashed. */
NORETURN void panic(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* Print the last line and power off. */
NORETURN void report_and_exit(void);

/* Power off without a verdict. */
NORETURN void power_off(void);

/* Only checks whose id starts with this are reported; "" for all. */
void check_only(const char *prefix);
bool check_selected(const char *id);

/* One check each. The rule is one clause with its source. */
void check_equal(const char *id, const char *rule, u64 want, u64 got);
void check_true(const char *id, const char *rule, bool got);
void check_text(const char *id, const char *rule, const char *want, const char *got);
void check_skip(const char *id, const char *rule, const char *why);

#endif
