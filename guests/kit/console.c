/*
 * The console.
 *
 * Its ring is a page shared with whoever owns the other end: copy bytes in, then move out_prod,
 * then ring the event channel. When the ring is full, ring the channel and give the CPU away until
 * there is room. Text collects in a line buffer first, so that one line costs one notification.
 */
#include "console.h"

#include "hypercall.h"
#include "mm.h"
#include "string.h"
#include "xen/rings.h"

static char line[256];
static size_t line_length;

static union {
    struct xencons_interface ring;
    char page[PAGE_SIZE];
} ring_page __attribute__((aligned(PAGE_SIZE)));

static evtchn_port_t ring_port; /* 0: no ring, use console_io */

void console_init(const struct start_info *si)
{
    if ((si->flags & SIF_INITDOMAIN) || !si->console.domU.mfn)
        return;
    map_foreign_page(&ring_page, si->console.domU.mfn);
    ring_port = si->console.domU.evtchn;
}

static void ring_write(const char *text, size_t length)
{
    struct xencons_interface *ring = &ring_page.ring;
    u32 prod = ring->out_prod;

    for (size_t i = 0; i < length; i++) {
        while (prod - __atomic_load_n(&ring->out_cons, __ATOMIC_ACQUIRE) == sizeof(ring->out)) {
            __atomic_store_n(&ring->out_prod, prod, __ATOMIC_RELEASE);
            hv_evtchn_send(ring_port);
            hv_sched_yield();
        }
        ring->out[prod++ % sizeof(ring->out)] = text[i];
    }
    __atomic_store_n(&ring->out_prod, prod, __ATOMIC_RELEASE);
    hv_evtchn_send(ring_port);
}

static void flush_line(void)
{
    if (ring_port)
        ring_write(line, line_length);
    else
        hv_console_write(line, line_length);
    line_length = 0;
}

void console_write(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        line[line_length++] = text[i];
        if (text[i] == '\n' || line_length == sizeof(line))
            flush_line();
    }
}

void print(const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    console_write(text, vformat(text, sizeof(text), fmt, args));
    va_end(args);
}
