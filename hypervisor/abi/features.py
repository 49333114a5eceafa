"""public/features.h: the bits of XENVER_get_features."""

from __future__ import annotations

from enum import IntEnum


class Feature(IntEnum):
    """XENFEAT_*: bit numbers."""

    WRITABLE_PAGE_TABLES = 0
    WRITABLE_DESCRIPTOR_TABLES = 1
    AUTO_TRANSLATED_PHYSMAP = 2
    SUPERVISOR_MODE_KERNEL = 3
    PAE_PGDIR_ABOVE_4GB = 4
    MMU_PT_UPDATE_PRESERVE_AD = 5
    HIGHMEM_ASSIST = 6
    GNTTAB_MAP_AVAIL_BITS = 7
    HVM_CALLBACK_VECTOR = 8
    HVM_SAFE_PVCLOCK = 9
    HVM_PIRQS = 10
    DOM0 = 11
    # 12 was grant_map_identity, for ARM, before 4.17
    MEMORY_OP_VNODE_SUPPORTED = 13
    ARM_SMCCC_SUPPORTED = 14
    LINUX_RSDP_UNRESTRICTED = 15
    NOT_DIRECT_MAPPED = 16
    DIRECT_MAPPED = 17
