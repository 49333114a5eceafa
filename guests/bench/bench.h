/* The loops that change page tables (tables.c), and null system calls. */
#ifndef BENCH_H
#define BENCH_H

#include "types.h"

void map_loop(u64 count);
void batch_loop(u64 count);
void entry_loop(u64 count);
void touch_loop(u64 count);

/* ports.c */
void port_loop(u64 count);

/* system_calls.c */
void bounced_loop(u64 count);
#if !IS_64
void direct_loop(u64 count);
#endif

#endif
