/* Operations on one virtual CPU (public/vcpu.h). */
#ifndef KIT_XEN_VCPU_H
#define KIT_XEN_VCPU_H

#include "../types.h"

#define VCPUOP_up 1
#define VCPUOP_is_up 3
#define VCPUOP_get_runstate_info 4
#define VCPUOP_register_runstate_memory_area 5
#define VCPUOP_set_periodic_timer 6
#define VCPUOP_stop_periodic_timer 7
#define VCPUOP_set_singleshot_timer 8
#define VCPUOP_stop_singleshot_timer 9
#define VCPUOP_register_vcpu_info 10
#define VCPUOP_get_physid 12

struct vcpu_set_periodic_timer {
    u64 period_ns;
};

struct vcpu_set_singleshot_timer {
    u64 timeout_abs_ns;
    u32 flags; /* VCPU_SSHOTTMR_future, which asks for -ETIME at a time past, and may be ignored */
};
_Static_assert(sizeof(struct vcpu_set_singleshot_timer) == (IS_64 ? 16 : 12), "");

struct vcpu_register_vcpu_info {
    u64 mfn;
    u32 offset; /* within the frame */
    u32 rsvd;
};
_Static_assert(sizeof(struct vcpu_register_vcpu_info) == 16, "");

/* The states of a virtual CPU, and the index of each one's time below. */
#define RUNSTATE_running 0  /* on a physical CPU */
#define RUNSTATE_runnable 1 /* waiting for one */
#define RUNSTATE_blocked 2  /* waiting for an event */
#define RUNSTATE_offline 3  /* paused, or down */

/* 32-bit guests have no padding behind state, which is why the member is packed away from 8. */
struct vcpu_runstate_info {
    s32 state;
    u64 state_entry_time; /* system time, ns */
    u64 time[4];          /* ns in each state; the present one's up to state_entry_time */
};
_Static_assert(sizeof(struct vcpu_runstate_info) == (IS_64 ? 48 : 44), "");

struct vcpu_register_runstate_memory_area {
    union {
        struct vcpu_runstate_info *v;
        u64 p;
    } addr;
};
_Static_assert(sizeof(struct vcpu_register_runstate_memory_area) == 8, "");

#define VCPU_SSHOTTMR_future (1u << 0)

#endif
