/*
 * What a PV kernel is handed at its start (public/xen.h, struct start_info): the register
 * (r)si holds its virtual address. Numbers called mfn are machine frames, pfn the guest's own.
 */
#ifndef KIT_XEN_START_INFO_H
#define KIT_XEN_START_INFO_H

#include "../types.h"

#define MAX_GUEST_CMDLINE 1024

struct start_info {
    char magic[32];       /* "xen-3.0-x86_32" and so on; in the clear only since Xen 3 */
    word nr_pages;        /* frames given to the domain */
    word shared_info;     /* machine address of struct shared_info; not mapped yet */
    u32 flags;            /* SIF_* */
    word store_mfn;       /* xenstore's ring page; 0 when there is none */
    u32 store_evtchn;     /* its event channel */
    union {
        struct {
            word mfn;     /* the console's ring page */
            u32 evtchn;
        } domU;
        struct {
            u32 info_off; /* about the VGA console: dom0 prints by console_io */
            u32 info_size;
        } dom0;
    } console;
    word pt_base;         /* virtual address of the top page table */
    word nr_pt_frames;
    word mfn_list;        /* virtual address of the p2m: word mfn_list[nr_pages] */
    word mod_start;       /* virtual address of the ramdisk */
    word mod_len;
    char cmd_line[MAX_GUEST_CMDLINE];
    word first_p2m_pfn;
    word nr_p2m_frames;
};
_Static_assert(sizeof(struct start_info) == (IS_64 ? 1168 : 1112), "");
_Static_assert(offsetof(struct start_info, cmd_line) == (IS_64 ? 128 : 80), "");

#define SIF_PRIVILEGED (1u << 0)
#define SIF_INITDOMAIN (1u << 1)    /* this is dom0 */
#define SIF_MOD_START_PFN (1u << 3) /* mod_start is a pfn, and the ramdisk not mapped */

#endif
