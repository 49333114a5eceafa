/*
 * What the checks share: pages to make tables of, one request at a time, and how an answer is
 * judged. A request that must be refused is also looked at afterwards: nothing may have changed.
 */
#ifndef PAGETABLES_H
#define PAGETABLES_H

#include "expect.h"
#include "hypercall.h"
#include "mm.h"
#include "report.h"

/* The initial domain has hardware, and is privileged, which others may be: other things are allowed
 * to it. */
extern bool is_privileged;

/* Addresses that no argument can stand at: not mapped, and Xen's own, which a guest may read but
 * may not let Xen read on its behalf. */
#define UNMAPPED ((void *)0x1000)
extern void *const xens;

#define NO_DOMAIN 0x7abc
#define DOMID_IO 0x7ff1
#define DOMID_XEN 0x7ff2
#define NO_FRAME ((word)0x7ffff) /* 2 GiB: more than any machine has that this runs on */

/* Ours to map at will: far from everything, with tables of its own from level 3 down. */
#define SANDBOX ((word)0x20000000)
void sandbox_init(void);
/* A table of the given level, 1 to the top less one, that holds nothing but what is asked for. */
const pte_t *free_entry(int level);

#define PTE_PWT (1u << 3)
#define PTE_PCD (1u << 4)
#define PTE_BIT_7 (1u << 7) /* PAT in a leaf, PSE above */
#define PTE_G (1u << 8)
#define PTE_AVAIL (7u << 9)
#define PTE_GUEST_KERNEL (1ull << 52) /* Xen's own, in leaves of 64-bit guests */
#define PTE_RIGHTS (PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D)

#if defined(WIDTH_X86_32)
#define PTE_FRAME ((pte_t)0xfffff000)
#else
#define PTE_FRAME ((pte_t)0x000ffffffffff000)
#endif
#define ENTRIES (PAGE_SIZE / sizeof(pte_t))

/* ---- pages ---- */

/* A page of our own: zeroed, writable, in no use. */
void *fresh_page(void);
/* The same, mapped read-only: fit to be a table. */
pte_t *fresh_table(void);
/* In no use any more; it may be mapped either way. */
void give_back(void *page);
/* Every page is back, and can be a table and a page again: no reference was left. */
void test_nothing_is_left(void);

void make_read_only(void *page);
void make_writable(void *page);

/* ---- requests, one each ---- */

u64 maddr_of(const void *vaddr);
long update(const pte_t *entry, pte_t value);
long update_as(unsigned command, const void *at, u64 value, u32 foreign);
long extended(u32 cmd, word arg1, word arg2);
long extended_foreign(u32 cmd, word arg1, word arg2, u32 foreign);
#define pin(level, table) extended(MMUEXT_PIN_L1_TABLE + (level) - 1, virt_to_mfn(table), 0)
#define unpin(table) extended(MMUEXT_UNPIN_TABLE, virt_to_mfn(table), 0)
/* An entry of a table or of a page that is to become one. */
void set_entry(const pte_t *entry, pte_t value);

/* ---- checks ---- */

/* expect, where a privileged domain gets another answer. */
void expect_by_privilege(const char *id, const char *rule, long want, long want_privileged,
                         long got);

/* Enter `value` and compare: the answer, and the entry's flags when it was accepted, or that it is
 * as it was when it was refused. Afterwards the entry is as it was. */
void check_accepted(const char *id, const char *rule, pte_t want_flags, const pte_t *entry,
                    pte_t value);
void check_refused(const char *id, const char *rule, long want, const pte_t *entry, pte_t value);

/* The flags of a leaf as Xen lets them stand. */
pte_t leaf_flags(pte_t flags);
/* The flags of an entry above. */
pte_t table_entry_flags(int level, pte_t flags);

/* The subjects, one file each. */
void test_bits(void);
void test_leaves(void);
void test_tables(void);
void test_linear(void);
void test_xens_slots(void);
void test_updates(void);
void test_batches(void);
void test_va_mappings(void);
void test_pins(void);
void test_base_pointers(void);
void test_flushes(void);
void test_whole_frames(void);
void test_reservation(void);
void test_exchange(void);
void test_memory_maps(void);
void test_stores(void);
void test_store_rules(void);
void test_descriptors(void);
void test_gdt_and_ldt(void);
void test_code(void);
void test_multicalls(void);
void test_pointers(void);

#endif
