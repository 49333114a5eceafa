/*
 * A domain's reservation of frames: giving some back, getting others, asking where things are
 * (public/memory.h).
 */
#ifndef KIT_XEN_MEMORY_H
#define KIT_XEN_MEMORY_H

#include "../types.h"

/* On extents; the result is how many were done. */
#define XENMEM_increase_reservation 0
#define XENMEM_decrease_reservation 1
#define XENMEM_populate_physmap 6

#define XENMEM_maximum_ram_page 2
#define XENMEM_current_reservation 3 /* of a domid_t */
#define XENMEM_maximum_reservation 4
#define XENMEM_machphys_mfn_list 5
#define XENMEM_add_to_physmap 7
#define XENMEM_memory_map 9
#define XENMEM_machine_memory_map 10
#define XENMEM_exchange 11
#define XENMEM_machphys_mapping 12
#define XENMEM_set_memory_map 13
#define XENMEM_maximum_gpfn 14
#define XENMEM_remove_from_physmap 15

struct xen_memory_reservation {
    word *extent_start; /* frame numbers, one an extent; in, out, or both */
    word nr_extents;
    u32 extent_order;   /* log2 of an extent's frames */
    u32 mem_flags;
    u16 domid;
};
_Static_assert(sizeof(struct xen_memory_reservation) == (IS_64 ? 32 : 20), "");

struct xen_memory_exchange {
    struct xen_memory_reservation in_, out;
    word nr_exchanged; /* in and out: how many of the input's extents are done; 0 at first */
};
_Static_assert(sizeof(struct xen_memory_exchange) == (IS_64 ? 72 : 44), "");

/* The frames that hold the m2p, one for each 2 MiB of it. */
struct xen_machphys_mfn_list {
    u32 max_extents;
    word *extent_start;
    u32 nr_extents; /* out */
};
_Static_assert(sizeof(struct xen_machphys_mfn_list) == (IS_64 ? 24 : 12), "");

struct xen_machphys_mapping {
    word v_start, v_end, max_mfn;
};
_Static_assert(sizeof(struct xen_machphys_mapping) == 3 * sizeof(word), "");

struct xen_memory_map {
    u32 nr_entries; /* in: room; out: used */
    void *buffer;
};
_Static_assert(sizeof(struct xen_memory_map) == 2 * sizeof(word), "");

struct e820_entry {
    u64 start, size;
    u32 type; /* 1: RAM */
} __attribute__((packed));

struct xen_add_to_physmap {
    u16 domid, size;
    u32 space;
    word idx, gpfn;
};

#endif
