/*
 * Page-table entries of the three widths (Intel SDM 3A, 4.3 to 4.5): a machine frame number and
 * flags in one word. Two-level tables have 4-byte entries, 1024 a table; the others 8-byte ones,
 * 512 a table (PAE's top table: 4).
 */
#ifndef KIT_PTE_H
#define KIT_PTE_H

#include "types.h"

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096

#define PTE_P (1u << 0)  /* present */
#define PTE_RW (1u << 1) /* writable */
#define PTE_US (1u << 2) /* for user mode */
#define PTE_A (1u << 5)  /* accessed; set by the MMU */
#define PTE_D (1u << 6)  /* dirty; set by the MMU */

#if defined(WIDTH_X86_32)
#define PT_LEVELS 2
#define PT_BITS 10 /* bits of an address that one table translates */
#define HAS_NX 0
#else
#define PT_LEVELS (IS_64 ? 4 : 3)
#define PT_BITS 9
#define HAS_NX 1
#endif

#ifndef __ASSEMBLER__

#if defined(WIDTH_X86_32)
typedef u32 pte_t;
#define PTE_NX 0u /* two-level tables cannot say it */
#else
typedef u64 pte_t;
#define PTE_NX (1ull << 63)
#endif

#define PTE_MFN_BITS 40

static inline pte_t make_pte(word mfn, pte_t flags)
{
    return ((pte_t)mfn << PAGE_SHIFT) | flags;
}

static inline word pte_mfn(pte_t entry)
{
    return (word)((entry & ~PTE_NX) >> PAGE_SHIFT) & (word)((1ull << PTE_MFN_BITS) - 1);
}

/* Which entry of its level's table translates vaddr; level 1 is the lowest. */
static inline unsigned pt_index(word vaddr, int level)
{
    return (unsigned)(vaddr >> (PAGE_SHIFT + PT_BITS * (level - 1))) & ((1u << PT_BITS) - 1);
}

#endif /* __ASSEMBLER__ */
#endif
