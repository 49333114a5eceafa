/* The loops that change page tables (tables.c). */
#ifndef BENCH_H
#define BENCH_H

#include "types.h"

void map_loop(u64 count);
void batch_loop(u64 count);
void entry_loop(u64 count);
void touch_loop(u64 count);

#endif
