/* Memory and text, the plain way: guests here copy little. */
#include "string.h"

void *memcpy(void *to, const void *from, size_t size)
{
    void *ret = to;

    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return ret;
}

void *memset(void *to, int byte, size_t size)
{
    void *ret = to;

    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(byte) : "memory");
    return ret;
}

void *memmove(void *to, const void *from, size_t size)
{
    char *t = to;
    const char *f = from;

    if (t <= f)
        return memcpy(to, from, size);
    while (size--) {
        t[size] = f[size];
        barrier(); /* or the compiler makes this loop a call to memmove */
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const u8 *x = a, *y = b;

    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}

size_t strlen(const char *text)
{
    size_t n = 0;

    while (text[n]) {
        n++;
        barrier();
    }
    return n;
}

bool starts_with(const char *text, const char *prefix)
{
    while (*prefix)
        if (*text++ != *prefix++)
            return false;
    return true;
}
