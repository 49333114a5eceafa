/*
 * The virtual IDT (public/arch-x86/xen.h, struct trap_info), callbacks (public/callback.h) and the
 * numbers of the exceptions (Intel SDM 3A, table 6-1).
 */
#ifndef KIT_XEN_TRAPS_H
#define KIT_XEN_TRAPS_H

#include "../types.h"

#define EXC_DE 0
#define EXC_DB 1
#define EXC_BP 3
#define EXC_OF 4
#define EXC_BR 5
#define EXC_UD 6
#define EXC_NM 7
#define EXC_DF 8
#define EXC_TS 10
#define EXC_NP 11
#define EXC_SS 12
#define EXC_GP 13
#define EXC_PF 14
#define EXC_MF 16
#define EXC_AC 17
#define EXC_MC 18
#define EXC_XM 19

#ifndef __ASSEMBLER__

/* set_trap_table takes an array of these, ended by one whose address is 0. */
struct trap_info {
    u8 vector;
    u8 flags; /* TI_DPL(n) | TI_MASK_EVENTS */
    u16 cs;
    word address;
};
_Static_assert(sizeof(struct trap_info) == (IS_64 ? 16 : 8), "");

#define TI_DPL(n) (n)         /* the least privileged ring whose `int n` may come through */
#define TI_MASK_EVENTS (1 << 2) /* upcalls are masked on entry */

#if IS_64
typedef word xen_callback_t;
#else
typedef struct {
    word cs;
    word eip;
} xen_callback_t;
#endif

struct callback_register {
    u16 type;
    u16 flags;
    xen_callback_t address;
};
_Static_assert(sizeof(struct callback_register) == (IS_64 ? 16 : 12), "");

struct callback_unregister {
    u16 type;
    u16 unused;
};

#define CALLBACKOP_register 0
#define CALLBACKOP_unregister 1

#define CALLBACKTYPE_event 0
#define CALLBACKTYPE_failsafe 1
#define CALLBACKTYPE_syscall 2 /* 64-bit */
#define CALLBACKTYPE_nmi 4
#define CALLBACKTYPE_sysenter 5
#define CALLBACKTYPE_syscall32 7
#define CALLBACKF_mask_events (1 << 0)

#define XENNMI_register_callback 0
#define XENNMI_unregister_callback 1

#endif /* __ASSEMBLER__ */
#endif
