/*
 * Not part of any kernel: build.py compiles this to assembly and collects the lines that start with
 * "# ->" into generated/offsets.h, so that entry_*.S never writes an offset by hand.
 */
#include "traps.h"

#define DEFINE(name, value) __asm__ volatile("\n# -> " name " %c0" ::"i"(value))

void offsets(void);

void offsets(void)
{
    DEFINE("REGS_vector", offsetof(struct regs, vector));
    DEFINE("REGS_ip", offsetof(struct regs, ip));
    DEFINE("TRAP_ENTRY_SIZE", TRAP_ENTRY_SIZE);
    DEFINE("VECTORS_WITH_ERROR_CODE", VECTORS_WITH_ERROR_CODE);
    DEFINE("VECTOR_EVENT", VECTOR_EVENT);
    DEFINE("VECTOR_FAILSAFE", VECTOR_FAILSAFE);
    DEFINE("VECTOR_SYSCALL", VECTOR_SYSCALL);
    DEFINE("VECTOR_SYSENTER", VECTOR_SYSENTER);
}
