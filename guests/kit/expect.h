/*
 * Checks of what a hypercall answered: -errno, as signed numbers. Xen answers dom0 otherwise where
 * it has the machine's hardware.
 *
 * In a header, so that the guests that refuse nothing stay as they are, byte for byte.
 */
#ifndef KIT_EXPECT_H
#define KIT_EXPECT_H

#include "console.h"
#include "report.h"

/* Set by the guest that includes this, before its first check. */
extern bool is_dom0;

/* The result of a hypercall, as the number it is. */
static inline void expect(const char *id, const char *rule, long want, long got)
{
    char want_text[24], got_text[24];

    format(want_text, sizeof(want_text), "%ld", want);
    format(got_text, sizeof(got_text), "%ld", got);
    check_text(id, rule, want_text, got_text);
}

/* The same where the initial domain gets another answer. */
static inline void expect_by_rank(const char *id, const char *rule, long want, long want_dom0,
                                  long got)
{
    expect(id, rule, is_dom0 ? want_dom0 : want, got);
}

#endif
