/*
 * The page a domain shares with Xen (public/xen.h): event bits, and per vCPU the upcall flags, the
 * clock and the address of the last page fault.
 */
#ifndef KIT_XEN_SHARED_INFO_H
#define KIT_XEN_SHARED_INFO_H

#include "../types.h"

#define XEN_LEGACY_MAX_VCPUS 32

/* How to turn the TSC into nanoseconds since boot. Consistent only while version is even and equal
 * before and after reading: system_time + ((tsc - tsc_timestamp) << tsc_shift) * mul / 2^32. */
struct vcpu_time_info {
    u32 version;
    u32 pad0;
    u64 tsc_timestamp;
    u64 system_time;
    u32 tsc_to_system_mul;
    signed char tsc_shift;
    u8 flags;
    u8 pad1[2];
};
_Static_assert(sizeof(struct vcpu_time_info) == 32, "");

struct arch_vcpu_info {
    word cr2; /* the address of the last page fault that was delivered */
#if IS_64
    word pad;
#else
    word pad[5];
#endif
};

struct vcpu_info {
    u8 evtchn_upcall_pending; /* set by Xen; cleared by the guest before it looks at the selector */
    u8 evtchn_upcall_mask;    /* the virtual interrupt flag, inverted; nonzero holds upcalls back */
    word evtchn_pending_sel;  /* bit n: evtchn_pending[n] has something */
    struct arch_vcpu_info arch;
    struct vcpu_time_info time;
};
_Static_assert(sizeof(struct vcpu_info) == 64, "");

struct arch_shared_info {
    word max_pfn;
    word pfn_to_mfn_frame_list_list;
    word nmi_reason;
    word p2m_cr3;
    word p2m_vaddr;
    word p2m_generation;
#if !IS_64
    u32 wc_sec_hi;
#endif
};

struct shared_info {
    struct vcpu_info vcpu_info[XEN_LEGACY_MAX_VCPUS];
    word evtchn_pending[WORD_BITS];
    word evtchn_mask[WORD_BITS];
    u32 wc_version; /* wall clock at system time 0; versioned as vcpu_time_info is */
    u32 wc_sec;
    u32 wc_nsec;
#if IS_64
    u32 wc_sec_hi;
#endif
    struct arch_shared_info arch;
};
_Static_assert(offsetof(struct shared_info, evtchn_pending) == 2048, "");
_Static_assert(offsetof(struct shared_info, wc_version) == (IS_64 ? 3072 : 2304), "");

#endif
