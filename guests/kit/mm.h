/*
 * Memory as a PV kernel has it.
 *
 * Three kinds of number: a virtual address, a pfn (the domain's own numbering, 0 up, which is how
 * Xen mapped it at VIRT_BASE) and an mfn (the machine's, which is what stands in page tables). The
 * p2m list turns pfn into mfn, the read-only m2p table at the bottom of Xen's hole goes back.
 */
#ifndef KIT_MM_H
#define KIT_MM_H

#include "layout.h"
#include "pte.h"
#include "xen/start_info.h"

#if IS_64
#define MACH2PHYS_VIRT_START 0xffff800000000000
#elif defined(WIDTH_X86_32P)
#define MACH2PHYS_VIRT_START 0xf5800000
#else
#define MACH2PHYS_VIRT_START 0xfc000000
#endif

#define MACHINE_TO_PHYS ((const word *)MACH2PHYS_VIRT_START)

void mm_init(const struct start_info *si);

word pfn_to_mfn(word pfn);
word virt_to_mfn(const void *vaddr);
/* The p2m list is the domain's own to keep: for a frame that took another's place. */
void set_pfn_to_mfn(word pfn, word mfn);

static inline word virt_to_pfn(const void *vaddr)
{
    return ((word)vaddr - (word)VIRT_BASE) >> PAGE_SHIFT;
}

static inline void *pfn_to_virt(word pfn)
{
    return (void *)((word)VIRT_BASE + (pfn << PAGE_SHIFT));
}

/* The entry of the given level (1 is the lowest) that translates vaddr, to be read only; NULL when
 * a table above it is missing. */
const pte_t *pt_walk(word vaddr, int level);

/* Write the L1 entry of vaddr, which must have a table, and forget the old translation. */
long set_l1e(word vaddr, pte_t l1e);

/* Change the rights of a page of our own. */
long protect_page(const void *page, pte_t flags);

/* Replace what a page of our image maps by a machine frame that Xen showed us. */
void map_foreign_page(void *page, word mfn);

/* A zeroed page of our own. */
void *alloc_page(void);

/* Map a frame at an address outside the initial mapping, making page tables as needed. */
void map_page(word vaddr, word mfn, pte_t flags);

#if IS_64
/* A second top table for user mode, sharing what is mapped in the first L4 entry's range. */
void make_user_table(word vaddr);
#endif

#endif
