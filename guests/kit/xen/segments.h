/*
 * Selectors of the flat segments in the part of every GDT that Xen keeps for itself, page 14
 * (public/arch-x86/xen-x86_32.h, xen-x86_64.h). A 32-bit kernel runs in ring 1 on them. A 64-bit
 * kernel gets ring 3 ones: long mode has no segment limits to keep ring 1 out of Xen's memory, and
 * paging knows only supervisor and user, so ring 1 could read all of Xen.
 */
#ifndef KIT_XEN_SEGMENTS_H
#define KIT_XEN_SEGMENTS_H

#include "../types.h"

#define FIRST_RESERVED_GDT_PAGE 14
#define FIRST_RESERVED_GDT_ENTRY (FIRST_RESERVED_GDT_PAGE * 512)

#if IS_64
#define FLAT_KERNEL_CS 0xe033
#define FLAT_KERNEL_SS 0xe02b
#define FLAT_KERNEL_DS 0x0000 /* data segments count for nothing in long mode */
#define FLAT_USER_CS 0xe033   /* the same: Xen keeps track of which mode this is */
#define FLAT_USER_CS32 0xe023
#define FLAT_USER_DS 0xe02b
#define FLAT_USER_SS 0xe02b
#else
#define FLAT_KERNEL_CS 0xe019
#define FLAT_KERNEL_SS 0xe021
#define FLAT_KERNEL_DS 0xe021
#define FLAT_USER_CS 0xe02b
#define FLAT_USER_DS 0xe033
#define FLAT_USER_SS 0xe033
#endif

#endif
