/* Operations on one virtual CPU (public/vcpu.h). */
#ifndef KIT_XEN_VCPU_H
#define KIT_XEN_VCPU_H

#include "traps.h"

#define VCPUOP_initialise 0
#define VCPUOP_up 1
#define VCPUOP_down 2
#define VCPUOP_is_up 3
#define VCPUOP_get_runstate_info 4
#define VCPUOP_register_runstate_memory_area 5
#define VCPUOP_set_periodic_timer 6
#define VCPUOP_stop_periodic_timer 7
#define VCPUOP_set_singleshot_timer 8
#define VCPUOP_stop_singleshot_timer 9
#define VCPUOP_register_vcpu_info 10
#define VCPUOP_send_nmi 11
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

/* All registers, in Xen's order (public/arch-x86/xen-x86_*.h). */
#if IS_64
struct cpu_user_regs {
    u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    u32 error_code, entry_vector; /* Xen's own */
    u64 rip;
    u16 cs, _pad0[1];
    u8 saved_upcall_mask, _pad1[3];
    u64 rflags, rsp;
    u16 ss, _pad2[3];
    u16 es, _pad3[3];
    u16 ds, _pad4[3];
    u16 fs, _pad5[3];
    u16 gs, _pad6[3];
};
_Static_assert(sizeof(struct cpu_user_regs) == 200, "");
#else
struct cpu_user_regs {
    u32 ebx, ecx, edx, esi, edi, ebp, eax;
    u16 error_code, entry_vector; /* Xen's own */
    u32 eip;
    u16 cs;
    u8 saved_upcall_mask, _pad0;
    u32 eflags, esp;
    u16 ss, _pad1;
    u16 es, _pad2;
    u16 ds, _pad3;
    u16 fs, _pad4;
    u16 gs, _pad5;
};
_Static_assert(sizeof(struct cpu_user_regs) == 68, "");
#endif

/* What a vCPU starts with: VCPUOP_initialise (public/arch-x86/xen.h). */
struct vcpu_guest_context {
    u8 fpu_ctxt[512];
    word flags; /* VGCF_* */
    struct cpu_user_regs user_regs;
    struct trap_info trap_ctxt[256];
    word ldt_base, ldt_ents;
    word gdt_frames[16], gdt_ents;
    word kernel_ss, kernel_sp;
    word ctrlreg[8]; /* [3] is the top-level table; on 64 bits [1] is user mode's */
    word debugreg[8];
#if IS_64
    word event_callback_eip, failsafe_callback_eip, syscall_callback_eip;
#else
    word event_callback_cs, event_callback_eip, failsafe_callback_cs, failsafe_callback_eip;
#endif
    word vm_assist;
#if IS_64
    u64 fs_base, gs_base_kernel, gs_base_user;
#endif
};
_Static_assert(sizeof(struct vcpu_guest_context) == (IS_64 ? 5168 : 2800), "");

#define VGCF_IN_KERNEL (1u << 2)

#endif
