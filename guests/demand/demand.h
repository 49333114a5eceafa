/*
 * demand: the smallest kernel with processes that is worth the name.
 *
 * A process has an address space of its own: a root table with the kernel's part shared, and one
 * L1 table for its user pages. Nothing is mapped there at first. A page is found on the first touch
 * (demand paging), and after a fork it is shared until somebody writes (copy on write).
 *
 * frames.c   the frames of the pool, and how many processes use each
 * space.c    address spaces: from zeroed frames to validated tables, and back
 * fault.c    what a page fault leads to
 * fork.c     sharing all pages, by three ways of changing page tables
 * process.c  running a process, its system calls, its end
 * programs.c what runs in ring 3
 * native.S   32-bit: page faults that return without Xen
 * main.c     the story
 */
#ifndef DEMAND_H
#define DEMAND_H

#include "mm.h"
#include "traps.h"
#include "user.h"

#define NR_DATA_PAGES 8
#define DATA_BASE (USER_BASE + PAGE_SIZE) /* the first page is the program */
#define DATA_END (DATA_BASE + NR_DATA_PAGES * PAGE_SIZE)

/* For our own use in an entry; the processor and Xen ignore bits 9 to 11. */
#define PTE_COW (1u << 9)

/* What Xen was entered for, counted where it happens. */
struct cost {
    unsigned faults; /* page faults, each delivered by Xen */
    unsigned calls;  /* hypercalls but iret */
    unsigned irets;  /* by hypercall */
    unsigned stores; /* to page tables, each trapped and done by Xen */
};

extern struct cost cost;

static inline unsigned entries(const struct cost *sum)
{
    return sum->faults + sum->calls + sum->irets + sum->stores;
}

static inline struct cost cost_since(const struct cost *before)
{
    return (struct cost){
        .faults = cost.faults - before->faults,
        .calls = cost.calls - before->calls,
        .irets = cost.irets - before->irets,
        .stores = cost.stores - before->stores,
    };
}

/* Counts a hypercall, which must not fail. */
void called(long err, const char *what);

/* ---- frames.c: a page of the pool, which the kernel can always read ---- */
void *page_alloc(void); /* zeroed, one user */
void page_share(void *page);
void page_put(void *page);
unsigned page_users(const void *page);
unsigned pages_free(void);
/* Write to every free page, and count them. */
unsigned pages_wiped(void);
void *page_of_mfn(word mfn);

/* ---- space.c ---- */
#define MAX_TABLES (PT_LEVELS + 1)

struct space {
    pte_t *tables[MAX_TABLES];
    unsigned nr_tables;
    pte_t *root, *user_root; /* user_root: 64-bit only */
    pte_t *l1;               /* the table of the user's pages */
};

/* Tables in zeroed frames: still ordinary memory, which we may fill as we like. */
void space_fill(struct space *space);
/* From here on they are page tables: read-only for us, checked by Xen, pinned. */
void space_seal(struct space *space);
void space_switch(const struct space *space);
/* Every frame back in the pool, fit for anything. Must not be the current one. */
void space_free(struct space *space);
/* The tables that the kernel was started on. */
void space_use_first(void);

static inline pte_t *space_entry(const struct space *space, word vaddr)
{
    return &space->l1[pt_index(vaddr, 1)];
}

/* ---- process.c ---- */
enum { SYS_FORK = 1, SYS_SAY, SYS_YIELD, SYS_EXIT };

struct process {
    unsigned pid; /* 0: none */
    struct space space;
    struct regs regs;
};

extern struct process *current;

struct process *process_start(const char *program, const char *end);
/* In user mode until the next trap that is no page fault, or none that can be resolved. */
void process_run(struct process *process);
/* All processes in turn until none is left. */
void processes_run(void);

/* ---- fault.c ---- */
enum how { REFUSED, ZEROED, COPIED, LAST_USER };

struct fault {
    enum how how;
    unsigned pid;
    word vaddr, ip, error;
    pte_t before, installed;
    struct cost cost; /* of this fault alone, iret included */
};

#define MAX_FAULTS 64
extern struct fault faults[MAX_FAULTS];
extern unsigned nr_faults;

void faults_init(void);
/* Resolves a page fault of the current process; false if it has no right to that address. */
bool fault_resolve(word vaddr, word ip, word error);
/* 32-bit: page faults by an entry of our own, which ends in a native iret; and as before. */
void faults_go_native(void);
void faults_go_back(void);
void native_fault(word ip, word error);

/* ---- fork.c ---- */
enum way { ONE_BY_ONE, ONE_BATCH, PLAIN_STORES, NR_WAYS };

/* What it cost to make so many pages of the parent read-only. */
extern struct cost fork_costs[NR_WAYS];
extern unsigned fork_pages[NR_WAYS];

void forks_init(void);
void fork_space(struct space *parent, struct space *child, enum way way);

/* ---- programs.c ---- */
#define PROGRAM(name) extern char name[], name##_end[]
PROGRAM(family);
PROGRAM(forker);
PROGRAM(stray);
PROGRAM(toucher);

#endif
