/*
 * Ways out of a domain, one file each, tried for real beside a neighbour.
 *
 * A file opens with three things: the way out, the rule that is in the way, and by its Python name
 * the check in ring1 that holds the rule. Tests read these lines. They run the attack as it is, and
 * once more without the check: then it has to get out, or else something other stops it and the
 * file is wrong.
 *
 * One attack a run (`only=NAME`), since one that gets out leaves nothing as it was. What a guest
 * would have to guess, it is told: a frame of its neighbour's and its neighbour's number.
 */
#ifndef ATTACKS_H
#define ATTACKS_H

#include "console.h"
#include "hypercall.h"
#include "list.h"
#include "machine.h"
#include "mm.h"
#include "report.h"

struct attack {
    const char *name;
    const char *stopped; /* what comes of it where the rule holds; "crash": the domain's end */
    void (*run)(void);
};

#define ATTACK(name_, stopped_)                                                                    \
    static void name_##_run(void);                                                                 \
    const struct attack name_ = { #name_, stopped_, name_##_run };                                 \
    static void name_##_run(void)

#define DECLARE(name) extern const struct attack name;
ATTACKS(DECLARE)
#undef DECLARE

/* ---- the neighbour ---- */

#define SECRET ((word)0x5ec2e700)

/* In the neighbour, the same image in its other role, this page is full of SECRET + n. */
extern word secret_page[PAGE_SIZE / sizeof(word)];

extern word neighbours_mfn;  /* of its secret_page */
extern word neighbours_root; /* of its top-level page table */
extern domid_t neighbour;

NORETURN void be_the_neighbour(void);

/* ---- what came of it; the last word counts ---- */

void outcome(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* By the result of a hypercall, "-EINVAL"; true if it was an error. */
bool refused(long result);
/* By a trap, "#PF(3)"; true if there was one. */
bool trapped(const struct trap_seen *seen);
/* The attack succeeded. */
void escaped(const char *what);

/* ---- tools ---- */

extern const struct start_info *start_of_day;

/* Pages of our own, neighbours in virtual memory, zeroed, mapped writable. */
#define NR_OWN 8
extern char own[NR_OWN][PAGE_SIZE];

#define WRITABLE ((pte_t)(PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D))
#define READABLE ((pte_t)(PTE_P | PTE_US | PTE_A))

/* An address range of one L1 table that no table of ours translates yet; its L2 table is there. */
#define WINDOW ((word)USER_BASE + ((word)1 << (PAGE_SHIFT + PT_BITS)))
void make_window(void);

/* The machine address of an entry that we can read. */
u64 entry_maddr(const pte_t *entry);
/* One mmu_update, one mmuext_op. */
long update(u64 ptr, u64 val);
long extended(u32 cmd, word arg1, word arg2);
/* A batch that clears what is clear, done so often that array operations are worth their import. */
#define NR_REQUESTS 256
extern struct mmu_update requests[NR_REQUESTS];
long many_updates(void);
/* The L1 entry of an address of our own, with its translation forgotten or not. */
long map(const void *page, word mfn, pte_t flags);
long map_lazily(const void *page, word mfn, pte_t flags);
/* Make a page an L1 table and let it translate WINDOW; it is mapped read-only then. */
long hang_table(const void *page);

/* One frame of `domid` given back; 1 if that was done. */
long release_frame(word mfn, domid_t domid);
/* One frame for a pfn of ours. */
long populate_frame(word pfn, word *mfn);
/* The first frame of our grant table, one of Xen's that it lends us; 0 if it does not. */
word grant_frame(void);

/* Memory accesses that may fault; a fault is the outcome. */
bool peek(const volatile void *at, word *value);
bool poke(volatile void *at, word value);
/* A store of an entry, in one piece where the width has such. */
bool poke_entry(volatile pte_t *at, pte_t value);
/* Read there; the neighbour's secret is an escape. */
bool finds_secret(const volatile void *at);
/* The same through the first page of WINDOW. */
bool window_shows_secret(void);

/* Any hypercall by its number. */
long hypercall(unsigned nr, word a1, word a2, word a3, word a4, word a5);

#endif
