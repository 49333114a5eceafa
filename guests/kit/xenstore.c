/*
 * xenstore's wire protocol (public/io/xs_wire.h), one request at a time.
 *
 * Request and answer are a header and its payload in a ring of 1024 bytes each way. We write one
 * request, ring the event channel, and poll that channel until the answer is there. Nothing is
 * watched, so what arrives can only be the answer.
 */
#include "xenstore.h"

#include "events.h"
#include "hypercall.h"
#include "mm.h"
#include "report.h"
#include "string.h"
#include "xen/rings.h"

static union {
    struct xenstore_domain_interface ring;
    char page[PAGE_SIZE];
} ring_page __attribute__((aligned(PAGE_SIZE)));

static evtchn_port_t ring_port;
static u32 next_request;

bool xenstore_init(const struct start_info *si)
{
    if (!si->store_mfn || !si->store_evtchn)
        return false;
    map_foreign_page(&ring_page, si->store_mfn);
    ring_port = si->store_evtchn;
    return true;
}

/* Wait until the other side has rung; it may have done so already. */
static void wait(void)
{
    struct sched_poll poll = { .ports = &ring_port, .nr_ports = 1 };

    hv_sched_poll(&poll);
    event_clear_pending(ring_port);
}

static void send(const void *data, size_t size)
{
    struct xenstore_domain_interface *ring = &ring_page.ring;
    const char *bytes = data;

    for (size_t i = 0; i < size; i++) {
        while (ring->req_prod - __atomic_load_n(&ring->req_cons, __ATOMIC_ACQUIRE) ==
               XENSTORE_RING_SIZE) {
            hv_evtchn_send(ring_port);
            wait();
        }
        ring->req[ring->req_prod % XENSTORE_RING_SIZE] = bytes[i];
        __atomic_store_n(&ring->req_prod, ring->req_prod + 1, __ATOMIC_RELEASE);
    }
}

/* Takes size bytes off the ring; those beyond the buffer's end are dropped. */
static void receive(void *data, size_t buffer_size, size_t size)
{
    struct xenstore_domain_interface *ring = &ring_page.ring;
    char *bytes = data;

    for (size_t i = 0; i < size; i++) {
        while (__atomic_load_n(&ring->rsp_prod, __ATOMIC_ACQUIRE) == ring->rsp_cons)
            wait();
        if (i < buffer_size)
            bytes[i] = ring->rsp[ring->rsp_cons % XENSTORE_RING_SIZE];
        __atomic_store_n(&ring->rsp_cons, ring->rsp_cons + 1, __ATOMIC_RELEASE);
    }
}

bool xenstore_read(const char *path, char *value, size_t size)
{
    struct xsd_sockmsg message = {
        .type = XS_READ,
        .req_id = ++next_request,
        .len = (u32)strlen(path) + 1,
    };

    send(&message, sizeof(message));
    send(path, message.len);
    hv_evtchn_send(ring_port);
    receive(&message, sizeof(message), sizeof(message));
    if (message.req_id != next_request)
        panic("xenstore answered request %u, not %u", message.req_id, next_request);
    receive(value, size - 1, message.len);
    /* Space in the ring is news to a xenstore that was waiting for it. */
    hv_evtchn_send(ring_port);
    value[message.len < size ? message.len : size - 1] = '\0';
    return message.type == XS_READ && message.len < size;
}
