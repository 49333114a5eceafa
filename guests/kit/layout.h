/*
 * Where the kernel lives. Shared by the linker script, the notes and C.
 *
 * Xen maps a domain's memory from VIRT_BASE up, frame 0 first: the image, what the builder adds,
 * and at least 512 KiB more. The image starts 1 MiB above, so that pfn, offset and address all
 * differ.
 */
#ifndef KIT_LAYOUT_H
#define KIT_LAYOUT_H

#include "types.h"

#if IS_64
#define VIRT_BASE 0xffffffff80000000
#define PADDR_OFFSET 0
#else
#define VIRT_BASE 0xc0000000
#define PADDR_OFFSET 0xc0000000
#endif

#define IMAGE_OFFSET 0x100000
/* _start fills the first page of the image; the hypercall page is the next one. */
#define HYPERCALL_PAGE_NR 0x101

/* Ring 3's pages: far below the kernel, in no table that Xen built. */
#define USER_BASE 0x10000000

#define STRING_(x) #x
#define STRING(x) STRING_(x)

#endif
