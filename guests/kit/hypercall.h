/*
 * Every hypercall the guests make, wrapped once, typed.
 *
 * A wrapper returns what Xen returned: 0 or a result, or a negated error number. The way in is the
 * hypercall page, which Xen fills with the right instructions for the width: `int $0x82` with
 * arguments in ebx ecx edx esi edi, or `syscall` with rdi rsi rdx r10 r8. Argument registers count
 * as changed afterwards (Xen's own debug builds scramble them), and syscall eats rcx and r11.
 */
#ifndef KIT_HYPERCALL_H
#define KIT_HYPERCALL_H

#include "pte.h"
#include "xen/event_channel.h"
#include "xen/memory.h"
#include "xen/misc.h"
#include "xen/mmu.h"
#include "xen/numbers.h"
#include "xen/sched.h"
#include "xen/traps.h"
#include "xen/vcpu.h"
#include "xen/version.h"

/* One page, filled by Xen before the first instruction runs (entry_*.S reserves it). */
extern char hypercall_page[];

#if IS_64
#define HYPERCALL_REGS(a1, a2, a3, a4, a5)                                                         \
    register word r1 __asm__("rdi") = (word)(a1);                                                  \
    register word r2 __asm__("rsi") = (word)(a2);                                                  \
    register word r3 __asm__("rdx") = (word)(a3);                                                  \
    register word r4 __asm__("r10") = (word)(a4);                                                  \
    register word r5 __asm__("r8") = (word)(a5)
#define HYPERCALL_CLOBBER "memory", "rcx", "r11"
#else
#define HYPERCALL_REGS(a1, a2, a3, a4, a5)                                                         \
    register word r1 __asm__("ebx") = (word)(a1);                                                  \
    register word r2 __asm__("ecx") = (word)(a2);                                                  \
    register word r3 __asm__("edx") = (word)(a3);                                                  \
    register word r4 __asm__("esi") = (word)(a4);                                                  \
    register word r5 __asm__("edi") = (word)(a5)
#define HYPERCALL_CLOBBER "memory"
#endif

/* Calls slot nr of the page with five arguments; a hypercall that takes fewer ignores the rest. */
#define HYPERCALL5(nr, a1, a2, a3, a4, a5)                                                         \
    ({                                                                                             \
        HYPERCALL_REGS(a1, a2, a3, a4, a5);                                                        \
        long ret_;                                                                                 \
        __asm__ volatile("call hypercall_page + %c[slot]"                                          \
                         : "=a"(ret_), "+r"(r1), "+r"(r2), "+r"(r3), "+r"(r4), "+r"(r5)            \
                         : [slot] "i"((nr) * HYPERCALL_SLOT_SIZE)                                  \
                         : HYPERCALL_CLOBBER);                                                     \
        ret_;                                                                                      \
    })
#define HYPERCALL4(nr, a1, a2, a3, a4) HYPERCALL5(nr, a1, a2, a3, a4, 0)
#define HYPERCALL3(nr, a1, a2, a3) HYPERCALL5(nr, a1, a2, a3, 0, 0)
#define HYPERCALL2(nr, a1, a2) HYPERCALL5(nr, a1, a2, 0, 0, 0)
#define HYPERCALL1(nr, a1) HYPERCALL5(nr, a1, 0, 0, 0, 0)

/* ---- traps and callbacks ---- */

static inline long hv_set_trap_table(const struct trap_info *table)
{
    return HYPERCALL1(__HYPERVISOR_set_trap_table, table);
}

/* The stack on which traps from user mode land. */
static inline long hv_stack_switch(word ss, word sp)
{
    return HYPERCALL2(__HYPERVISOR_stack_switch, ss, sp);
}

#if IS_64
static inline long hv_set_callbacks(word event, word failsafe, word syscall)
{
    return HYPERCALL3(__HYPERVISOR_set_callbacks, event, failsafe, syscall);
}
#else
static inline long hv_set_callbacks(word event_cs, word event, word failsafe_cs, word failsafe)
{
    return HYPERCALL4(__HYPERVISOR_set_callbacks, event_cs, event, failsafe_cs, failsafe);
}
#endif

static inline long hv_callback_register(const struct callback_register *reg)
{
    return HYPERCALL2(__HYPERVISOR_callback_op, CALLBACKOP_register, reg);
}

static inline long hv_callback_unregister(const struct callback_unregister *unreg)
{
    return HYPERCALL2(__HYPERVISOR_callback_op, CALLBACKOP_unregister, unreg);
}

/* ---- processor state that only Xen may change ---- */

static inline long hv_fpu_taskswitch(bool set)
{
    return HYPERCALL1(__HYPERVISOR_fpu_taskswitch, set);
}

static inline long hv_set_debugreg(int nr, word value)
{
    return HYPERCALL2(__HYPERVISOR_set_debugreg, nr, value);
}

static inline word hv_get_debugreg(int nr)
{
    return (word)HYPERCALL1(__HYPERVISOR_get_debugreg, nr);
}

static inline long hv_set_gdt(const word *mfns, u32 entries)
{
    return HYPERCALL2(__HYPERVISOR_set_gdt, mfns, entries);
}

/* Both arguments are 64 bits wide, so a 32-bit guest passes each in two registers. */
static inline long hv_update_descriptor(u64 maddr, u64 descriptor)
{
#if IS_64
    return HYPERCALL2(__HYPERVISOR_update_descriptor, maddr, descriptor);
#else
    return HYPERCALL4(__HYPERVISOR_update_descriptor, maddr, maddr >> 32, descriptor,
                      descriptor >> 32);
#endif
}

#if IS_64
static inline long hv_set_segment_base(int which, word base)
{
    return HYPERCALL2(__HYPERVISOR_set_segment_base, which, base);
}
#endif

/* ---- page tables ---- */

/* foreign: whose frames entries may name; in the upper half whose tables change, 0 or domid + 1. */
static inline long hv_mmu_update_foreign(const struct mmu_update *reqs, u32 count, u32 *done,
                                         u32 foreign)
{
    return HYPERCALL4(__HYPERVISOR_mmu_update, reqs, count, done, foreign);
}

static inline long hv_mmu_update(const struct mmu_update *reqs, u32 count, u32 *done)
{
    return hv_mmu_update_foreign(reqs, count, done, DOMID_SELF);
}

static inline long hv_mmuext_op_foreign(const struct mmuext_op *ops, u32 count, u32 *done,
                                        u32 foreign)
{
    return HYPERCALL4(__HYPERVISOR_mmuext_op, ops, count, done, foreign);
}

static inline long hv_mmuext_op(const struct mmuext_op *ops, u32 count, u32 *done)
{
    return hv_mmuext_op_foreign(ops, count, done, DOMID_SELF);
}

/* Writes the L1 entry that maps vaddr; a 32-bit guest passes the entry in two registers. */
static inline long hv_update_va_mapping(word vaddr, pte_t l1e, word flags)
{
#if IS_64
    return HYPERCALL3(__HYPERVISOR_update_va_mapping, vaddr, l1e, flags);
#else
    return HYPERCALL4(__HYPERVISOR_update_va_mapping, vaddr, l1e, (u64)l1e >> 32, flags);
#endif
}

/* The same with a frame of another domain's. */
static inline long hv_update_va_mapping_otherdomain(word vaddr, pte_t l1e, word flags, u32 domid)
{
#if IS_64
    return HYPERCALL4(__HYPERVISOR_update_va_mapping_otherdomain, vaddr, l1e, flags, domid);
#else
    return HYPERCALL5(__HYPERVISOR_update_va_mapping_otherdomain, vaddr, l1e, (u64)l1e >> 32,
                      flags, domid);
#endif
}

/* A number of extents done, a count, or 0, by the operation; or an error. */
static inline long hv_memory_op(int cmd, void *arg)
{
    return HYPERCALL2(__HYPERVISOR_memory_op, cmd, arg);
}

/* ---- time and scheduling ---- */

/* VIRQ_TIMER when the system time reaches abs_ns; 0 cancels. */
static inline long hv_set_timer_op(u64 abs_ns)
{
#if IS_64
    return HYPERCALL1(__HYPERVISOR_set_timer_op, abs_ns);
#else
    return HYPERCALL2(__HYPERVISOR_set_timer_op, abs_ns, abs_ns >> 32);
#endif
}

static inline long hv_sched_yield(void)
{
    return HYPERCALL2(__HYPERVISOR_sched_op, SCHEDOP_yield, 0);
}

/* Unmasks upcalls and waits until one is due. */
static inline long hv_sched_block(void)
{
    return HYPERCALL2(__HYPERVISOR_sched_op, SCHEDOP_block, 0);
}

static inline long hv_sched_poll(const struct sched_poll *poll)
{
    return HYPERCALL2(__HYPERVISOR_sched_op, SCHEDOP_poll, poll);
}

static inline long hv_sched_shutdown(u32 reason)
{
    struct sched_shutdown shutdown = { .reason = reason };

    return HYPERCALL2(__HYPERVISOR_sched_op, SCHEDOP_shutdown, &shutdown);
}

static inline long hv_vcpu_op(int cmd, u32 vcpu, const void *arg)
{
    return HYPERCALL3(__HYPERVISOR_vcpu_op, cmd, vcpu, arg);
}

/* ---- events ---- */

static inline long hv_event_channel_op(int cmd, void *arg)
{
    return HYPERCALL2(__HYPERVISOR_event_channel_op, cmd, arg);
}

static inline long hv_evtchn_send(evtchn_port_t port)
{
    struct evtchn_port_op send = { .port = port };

    return hv_event_channel_op(EVTCHNOP_send, &send);
}

static inline long hv_evtchn_unmask(evtchn_port_t port)
{
    struct evtchn_port_op unmask = { .port = port };

    return hv_event_channel_op(EVTCHNOP_unmask, &unmask);
}

static inline long hv_evtchn_close(evtchn_port_t port)
{
    struct evtchn_port_op close = { .port = port };

    return hv_event_channel_op(EVTCHNOP_close, &close);
}

/* ---- the rest ---- */

static inline long hv_xen_version(int cmd, void *arg)
{
    return HYPERCALL2(__HYPERVISOR_xen_version, cmd, arg);
}

/* Xen's own console; always there for dom0, for others only in a Xen built to allow it. */
static inline long hv_console_write(const char *text, size_t length)
{
    return HYPERCALL3(__HYPERVISOR_console_io, CONSOLEIO_write, length, text);
}

static inline long hv_vm_assist(u32 cmd, u32 type)
{
    return HYPERCALL2(__HYPERVISOR_vm_assist, cmd, type);
}

/* The virtual I/O privilege level: at 1 or more the kernel may use cli, sti, in and out. */
static inline long hv_set_iopl(u32 level)
{
    struct physdev_set_iopl set = { .iopl = level };

    return HYPERCALL2(__HYPERVISOR_physdev_op, PHYSDEVOP_set_iopl, &set);
}

static inline long hv_multicall(struct multicall_entry *calls, u32 count)
{
    return HYPERCALL2(__HYPERVISOR_multicall, calls, count);
}

#endif
