/*
 * Printing. As dom0 by hypercall console_io, else through the console ring; lines go out whole.
 */
#ifndef KIT_CONSOLE_H
#define KIT_CONSOLE_H

#include <stdarg.h>

#include "types.h"
#include "xen/start_info.h"

void console_init(const struct start_info *si);
void console_write(const char *text, size_t length);

/* %d %u %x %c %s %p %%, with l, ll or z, a width, and the flags 0 and -. */
void print(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* The same into a buffer, cut off at size - 1; returns the length. */
size_t format(char *text, size_t size, const char *fmt, ...) PRINTF_LIKE(3, 4);
size_t vformat(char *text, size_t size, const char *fmt, va_list args);

#endif
