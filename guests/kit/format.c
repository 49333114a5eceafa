/* A small printf. Numbers are converted in a buffer of their own, then padded. */
#include "console.h"
#include "string.h"
#include "time.h"

struct out {
    char *text;
    size_t size, length;
};

struct spec {
    bool left;
    char pad;
    unsigned width;
};

static void put(struct out *out, char c)
{
    if (out->length + 1 < out->size)
        out->text[out->length++] = c;
}

static void put_padded(struct out *out, struct spec spec, const char *text, size_t length)
{
    size_t padding = length < spec.width ? spec.width - length : 0;

    for (size_t i = 0; i < padding && !spec.left; i++)
        put(out, spec.pad);
    for (size_t i = 0; i < length; i++)
        put(out, text[i]);
    for (size_t i = 0; i < padding && spec.left; i++)
        put(out, ' ');
}

static void put_number(struct out *out, struct spec spec, u64 value, bool negative, unsigned base)
{
    char digits[24];
    unsigned at = sizeof(digits);

    do {
        u32 digit;

        value = divide(value, base, &digit);
        digits[--at] = "0123456789abcdef"[digit];
    } while (value);
    if (negative)
        digits[--at] = '-';
    put_padded(out, spec, digits + at, sizeof(digits) - at);
}

static struct spec parse_spec(const char **fmt)
{
    struct spec spec = { .pad = ' ' };

    for (;; (*fmt)++) {
        if (**fmt == '-')
            spec.left = true;
        else if (**fmt == '0')
            spec.pad = '0';
        else
            break;
    }
    while (**fmt >= '0' && **fmt <= '9')
        spec.width = spec.width * 10 + (unsigned)(*(*fmt)++ - '0');
    return spec;
}

/* How many l stand before the conversion; z counts as one. */
static int parse_length(const char **fmt)
{
    int longs = 0;

    for (; **fmt == 'l' || **fmt == 'z'; (*fmt)++)
        longs++;
    return longs;
}

size_t vformat(char *text, size_t size, const char *fmt, va_list args)
{
    struct out out = { .text = text, .size = size };

    for (; *fmt; fmt++) {
        struct spec spec;
        int longs;

        if (*fmt != '%') {
            put(&out, *fmt);
            continue;
        }
        fmt++;
        spec = parse_spec(&fmt);
        longs = parse_length(&fmt);
        switch (*fmt) {
        case 'c':
            put(&out, (char)va_arg(args, int));
            break;
        case 's': {
            const char *s = va_arg(args, const char *);

            put_padded(&out, spec, s, strlen(s));
            break;
        }
        case 'd': {
            s64 v = longs == 2 ? va_arg(args, long long)
                               : longs ? va_arg(args, long) : va_arg(args, int);

            put_number(&out, spec, v < 0 ? 0 - (u64)v : (u64)v, v < 0, 10);
            break;
        }
        case 'u':
        case 'x': {
            u64 v = longs == 2 ? va_arg(args, unsigned long long)
                               : longs ? va_arg(args, unsigned long) : va_arg(args, unsigned);

            put_number(&out, spec, v, false, *fmt == 'x' ? 16 : 10);
            break;
        }
        case 'p':
            put_number(&out, spec, (word)va_arg(args, void *), false, 16);
            break;
        default:
            put(&out, *fmt);
        }
    }
    if (size)
        text[out.length] = '\0';
    return out.length;
}

size_t format(char *text, size_t size, const char *fmt, ...)
{
    va_list args;
    size_t length;

    va_start(args, fmt);
    length = vformat(text, size, fmt, args);
    va_end(args);
    return length;
}
