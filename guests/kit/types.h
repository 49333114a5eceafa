/*
 * The words everything else is written in.
 *
 * One kit serves three widths; what differs between them stands here and in mm.h:
 *
 *   x86_32   32-bit, two-level page tables with 4-byte entries (the Xen of 2003)
 *   x86_32p  32-bit, PAE: three levels, 8-byte entries
 *   x86_64   64-bit: four levels, 8-byte entries
 *
 * The build defines one of WIDTH_X86_32, WIDTH_X86_32P and WIDTH_X86_64. This file can be
 * included from assembly: C stays inside the #ifndef.
 */
#ifndef KIT_TYPES_H
#define KIT_TYPES_H

#if defined(WIDTH_X86_32)
#define WIDTH_NAME "x86_32"
#define WORD_BITS 32
#elif defined(WIDTH_X86_32P)
#define WIDTH_NAME "x86_32p"
#define WORD_BITS 32
#elif defined(WIDTH_X86_64)
#define WIDTH_NAME "x86_64"
#define WORD_BITS 64
#else
#error "build.py defines the width"
#endif

#define IS_64 (WORD_BITS == 64)

#ifndef __ASSEMBLER__

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

/* The guest's natural word: Xen's xen_ulong_t, and the size of a pointer. */
typedef unsigned long word;
_Static_assert(sizeof(word) * 8 == WORD_BITS && sizeof(void *) == sizeof(word), "");

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define barrier() __asm__ volatile("" ::: "memory")
#define NORETURN __attribute__((noreturn))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

#endif /* __ASSEMBLER__ */
#endif
