/*
 * Asking for what must be refused. Each check makes one hypercall and compares what came back with
 * the error number that Xen has for it; a few that must be granted stand beside them, where Xen is
 * more generous than one would think.
 */
#ifndef REFUSALS_H
#define REFUSALS_H

#include "expect.h"
#include "hypercall.h"
#include "report.h"

/* Addresses that no argument can stand at: not mapped, and Xen's own. A guest may read the second,
 * but may not let Xen read it on its behalf. */
#define UNMAPPED ((void *)0x1000)
extern void *const xens;

/* Numbers that name nothing. */
#define NO_OPERATION 99
#define NO_DOMAIN 0x7abc
#define NO_VCPU 77
#define NO_PORT 9999
#define NOT_CANONICAL ((word)1 << (WORD_BITS - 2))

/* Any hypercall by its number, with three arguments. */
long hypercall(unsigned nr, word a1, word a2, word a3);

/* The subjects, one file each. */
void test_event_channels(void);
void test_scheduling(void);
void test_vcpus(void);
void test_entry_points(void);
void test_cpu_state(void);
void test_devices(void);
void test_numbers(void);

#endif
