/* The four that the compiler may call by itself, and two that guests use. */
#ifndef KIT_STRING_H
#define KIT_STRING_H

#include "types.h"

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
void *memmove(void *to, const void *from, size_t size);
int memcmp(const void *a, const void *b, size_t size);

size_t strlen(const char *text);
bool starts_with(const char *text, const char *prefix);

#endif
