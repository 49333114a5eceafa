/* Interfaces that only the attacks use: grant tables, areas of a vCPU, event queues, segments that hurt. */
#ifndef ATTACKS_MACHINE_H
#define ATTACKS_MACHINE_H

#include "types.h"

#define XEN_ENOSPC 28

#define GNTTABOP_setup_table 2

struct gnttab_setup_table {
    u16 dom;
    u32 nr_frames;
    int16_t status; /* out: 0, or a GNTST_* below it */
    word *frame_list;
};
_Static_assert(sizeof(struct gnttab_setup_table) == (IS_64 ? 24 : 16), "");

#define VCPUOP_register_runstate_memory_area 5
#define VCPUOP_register_vcpu_time_memory_area 13

/* EVTCHNOP_init_control and EVTCHNOP_expand_array (public/event_channel.h). */
#define FIFO_INIT_CONTROL 11
#define FIFO_EXPAND_ARRAY 12

struct evtchn_fifo_control {
    u64 mfn;
    u32 offset, vcpu;
    u8 link_bits; /* out */
    u8 pad[7];
};
_Static_assert(sizeof(struct evtchn_fifo_control) == 24, "");

struct evtchn_fifo_array {
    u64 mfn;
};

/* Flat segments (SDM 3A 3.4.5): code of ring 0, data of ring 3. */
#if IS_64
#define DESC_RING0_CODE ((u64)0x00af9b00 << 32 | 0xffff)
#else
#define DESC_RING0_CODE ((u64)0x00cf9b00 << 32 | 0xffff)
#endif
#define DESC_RING3_DATA ((u64)0x00cff300 << 32 | 0xffff)

static inline u32 desc_dpl(u64 desc)
{
    return (u32)(desc >> 45) & 3;
}

#endif
