"""public/arch-x86/xen.h and cpuid.h: what all x86 guests share."""

from __future__ import annotations

from enum import IntFlag
from typing import Final

# --- segment descriptors: Xen's own stand behind the guest's in every GDT ---------------------
FIRST_RESERVED_GDT_PAGE: Final = 14
FIRST_RESERVED_GDT_BYTE: Final = FIRST_RESERVED_GDT_PAGE * 4096
FIRST_RESERVED_GDT_ENTRY: Final = FIRST_RESERVED_GDT_BYTE // 8


class Vgcf(IntFlag):
    """VGCF_*: flags of a vCPU's context; IN_SYSCALL stands in an iret frame (xen-x86_64.h)."""

    I387_VALID = 1 << 0
    IN_KERNEL = 1 << 2
    FAILSAFE_DISABLES_EVENTS = 1 << 3
    SYSCALL_DISABLES_EVENTS = 1 << 4
    ONLINE = 1 << 5


# --- cpuid.h ------------------------------------------------------------------------------------
XEN_CPUID_FIRST_LEAF: Final = 0x4000_0000
XEN_CPUID_SIGNATURE_EBX: Final = 0x566E_6558  # "XenV"
XEN_CPUID_SIGNATURE_ECX: Final = 0x6558_4D4D  # "MMXe"
XEN_CPUID_SIGNATURE_EDX: Final = 0x4D4D_566E  # "nVMM"
