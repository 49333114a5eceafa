/*
 * User mode: three pages at USER_BASE that ring 3 may touch, and a way to run code there until it
 * traps. On 32 bits the U/S bit of the page tables keeps ring 3 away from the ring-1 kernel; a
 * 64-bit kernel shares ring 3 with its programs, so they get a page table of their own, in which
 * only these pages exist, and Xen switches.
 */
#ifndef KIT_USER_H
#define KIT_USER_H

#include "layout.h"
#include "pte.h"
#include "traps.h"

#define USER_CODE USER_BASE                     /* read and execute */
#define USER_DATA (USER_BASE + PAGE_SIZE)       /* read and write */
#define USER_STACK (USER_BASE + 2 * PAGE_SIZE)  /* read and write */
#define USER_STACK_TOP (USER_BASE + 3 * PAGE_SIZE)

#ifndef __ASSEMBLER__

/* The kernel stack that Xen switches to when user mode traps. */
extern char *const user_trap_stack_top;

void user_init(void);

/* The kernel's own view of USER_DATA. */
extern word *user_data;

/* Copy a program to USER_CODE and fill *regs so that resuming them starts it, registers 0. */
void user_load(const char *start, const char *end, struct regs *regs);

/* Go on in user mode with *regs until the next trap that no handler takes. */
void user_continue(struct regs *regs, struct trap_seen *seen);

#endif /* __ASSEMBLER__ */
#endif
