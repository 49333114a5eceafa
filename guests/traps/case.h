/*
 * How a trap is provoked and judged.
 *
 * PROVOKE defines a few instructions in assembly, of which one is expected to trap: `name` is where
 * they start, name_at the one, name_end what follows it. A struct trap_case says what must be seen,
 * and check_trap_case runs the code and compares vector, error code, where the instruction pointer
 * is, and for page faults the address.
 */
#ifndef TRAPS_CASE_H
#define TRAPS_CASE_H

#include "report.h"
#include "traps.h"

#define PROVOKE_(name, before, insn, leave)                                                        \
    __asm__(".pushsection .text.provoke, \"ax\"\n" #name ":\n\t" before "\n" #name "_at:\n\t" insn \
            "\n" #name "_end:\n\t" leave "\n" #name "_stop:\n.popsection");                        \
    extern char name[], name##_at[], name##_end[], name##_stop[]

/* In the kernel: called, and it returns when nothing traps. It may change any register. */
#define PROVOKE(name, before, insn) PROVOKE_(name, before, insn, "ret")
/* For user mode: copied there, so without references to itself; ends with ud2. */
#define PROVOKE_USER(name, before, insn) PROVOKE_(name, before, insn, "ud2")

/* Register names of the natural width, for the text of PROVOKE. */
#if IS_64
#define AX "%rax"
#define BX "%rbx"
#define CX "%rcx"
#define DX "%rdx"
#define SI "%rsi"
#define DI "%rdi"
#define SP "%rsp"
#define WORD_ASM ".quad"
#else
#define AX "%eax"
#define BX "%ebx"
#define CX "%ecx"
#define DX "%edx"
#define SI "%esi"
#define DI "%edi"
#define SP "%esp"
#define WORD_ASM ".long"
#endif

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

enum where { AT, AFTER };

struct trap_case {
    const char *id;
    const char *rule;
    const char *start, *at, *end, *stop;
    word vector;
    word error;
    enum where where;
    word cr2;
    bool nothing; /* no trap is what must be seen */
    /* What emulated processors are known to do instead, in the words of the report: then the check
     * is skipped, since it would say nothing about the hypervisor. */
    const char *quirk;
};

/* The part of a case that PROVOKE defined. */
#define CODE(name) .start = name, .at = name##_at, .end = name##_end, .stop = name##_stop

/* Run in the kernel, or in user mode, and report. The trap stays in *seen for more checks. */
void check_trap_case(const struct trap_case *c, struct trap_seen *seen);
void check_user_case(const struct trap_case *c, struct trap_seen *seen);

/* Every case of a table. */
#define CHECK_ALL(check, cases)                                                                    \
    do {                                                                                           \
        for (size_t i_ = 0; i_ < ARRAY_SIZE(cases); i_++) {                                        \
            struct trap_seen seen_;                                                                \
            check(&(cases)[i_], &seen_);                                                           \
        }                                                                                          \
    } while (0)

/* Call a few instructions defined by PROVOKE until they return or trap. */
void provoke(const char *start, struct trap_seen *seen);

/* The subjects, one file each. */
void test_exceptions(void);
void test_fpu(void);
void test_privileged(void);
void test_page_faults(void);
void test_segments(void);
void test_soft_interrupts(void);
void test_emulated(void);
void test_events(void);
void test_nested(void);
void test_user(void);
void test_ports(void);
void test_iret(void);

#endif
