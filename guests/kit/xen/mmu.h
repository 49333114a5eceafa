/*
 * Requests about page tables (public/xen.h): a PV guest's tables are the ones the MMU walks, so the
 * guest may read them but every write is a request that Xen checks.
 */
#ifndef KIT_XEN_MMU_H
#define KIT_XEN_MMU_H

#include "../types.h"

#define DOMID_SELF_MMU 0x7ff0u

/* The low bits of mmu_update.ptr, as far as an entry is aligned, say what is asked. */
#define MMU_NORMAL_PT_UPDATE 0      /* *ptr = val */
#define MMU_MACHPHYS_UPDATE 1       /* the m2p of the frame at ptr = val */
#define MMU_PT_UPDATE_PRESERVE_AD 2 /* *ptr = val | what is set of A and D */
#define MMU_PT_UPDATE_NO_TRANSLATE 3

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
#define MMUEXT_TLB_FLUSH_MULTI 8
#define MMUEXT_INVLPG_MULTI 9
#define MMUEXT_TLB_FLUSH_ALL 10
#define MMUEXT_INVLPG_ALL 11
#define MMUEXT_FLUSH_CACHE 12
#define MMUEXT_SET_LDT 13
#define MMUEXT_NEW_USER_BASEPTR 15 /* 64-bit */
#define MMUEXT_CLEAR_PAGE 16
#define MMUEXT_COPY_PAGE 17
#define MMUEXT_FLUSH_CACHE_GLOBAL 18
#define MMUEXT_MARK_SUPER 19
#define MMUEXT_UNMARK_SUPER 20

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
#define UVMF_LOCAL 0 /* on this vCPU; in its place may stand the address of a set of vCPUs */
#define UVMF_ALL 4   /* on all of the domain's */

#endif
