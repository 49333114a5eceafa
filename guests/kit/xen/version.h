/* Asking Xen about itself (public/version.h, public/features.h). */
#ifndef KIT_XEN_VERSION_H
#define KIT_XEN_VERSION_H

#include "../types.h"

#define XENVER_version 0 /* returns major << 16 | minor */
#define XENVER_extraversion 1
#define XENVER_capabilities 3
#define XENVER_platform_parameters 5
#define XENVER_get_features 6
#define XENVER_pagesize 7

typedef char xen_extraversion_t[16];
typedef char xen_capabilities_info_t[1024];

struct xen_platform_parameters {
    word virt_start; /* where Xen's hole in every address space begins */
};

struct xen_feature_info {
    u32 submap_idx; /* in */
    u32 submap;     /* out: one bit per XENFEAT_* */
};

#define XENFEAT_writable_page_tables 0
#define XENFEAT_writable_descriptor_tables 1
#define XENFEAT_auto_translated_physmap 2
#define XENFEAT_supervisor_mode_kernel 3
#define XENFEAT_pae_pgdir_above_4gb 4
#define XENFEAT_mmu_pt_update_preserve_ad 5
#define XENFEAT_highmem_assist 6
#define XENFEAT_gnttab_map_avail_bits 7
#define XENFEAT_dom0 11
#define XENFEAT_memory_op_vnode_supported 13
#define XENFEAT_direct_mapped 17

#endif
