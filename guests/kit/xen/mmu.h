/*
 * Requests about page tables (public/xen.h): a PV guest's tables are the ones the MMU walks, so the
 * guest may read them but every write is a request that Xen checks.
 */
#ifndef KIT_XEN_MMU_H
#define KIT_XEN_MMU_H

#include "../types.h"

#define DOMID_SELF_MMU 0x7ff0u

/* The two low bits of mmu_update.ptr say what is asked. */
#define MMU_NORMAL_PT_UPDATE 0

struct mmu_update {
    u64 ptr; /* machine address of the entry | MMU_* */
    u64 val;
};
_Static_assert(sizeof(struct mmu_update) == 16, "");

#define MMUEXT_PIN_L1_TABLE 0
#define MMUEXT_PIN_L2_TABLE 1
#define MMUEXT_PIN_L3_TABLE 2
#define MMUEXT_PIN_L4_TABLE 3
#define MMUEXT_UNPIN_TABLE 4
#define MMUEXT_NEW_BASEPTR 5
#define MMUEXT_TLB_FLUSH_LOCAL 6
#define MMUEXT_INVLPG_LOCAL 7
#define MMUEXT_SET_LDT 13
#define MMUEXT_NEW_USER_BASEPTR 15 /* 64-bit */

struct mmuext_op {
    u32 cmd;
    union {
        word mfn;
        word linear_addr;
    } arg1;
    union {
        u32 nr_ents;
        const void *vcpumask;
        word src_mfn;
    } arg2;
};
_Static_assert(sizeof(struct mmuext_op) == (IS_64 ? 24 : 12), "");

/* What update_va_mapping flushes afterwards. */
#define UVMF_NONE 0
#define UVMF_TLB_FLUSH 1
#define UVMF_INVLPG 2

#endif
