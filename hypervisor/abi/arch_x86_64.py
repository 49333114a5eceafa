"""public/arch-x86/xen-x86_64.h: what only 64-bit guests see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hypervisor.abi.layout import U64, abi_struct

# --- flat segments in Xen's part of every GDT; kernel and user run in ring 3 --------------------
FLAT_RING3_CS32: Final = 0xE023
FLAT_RING3_CS64: Final = 0xE033
FLAT_RING3_DS32: Final = 0xE02B
FLAT_RING3_DS64: Final = 0
FLAT_RING3_SS32: Final = 0xE02B
FLAT_RING3_SS64: Final = 0xE02B
FLAT_KERNEL_CS64: Final = FLAT_RING3_CS64
FLAT_KERNEL_SS64: Final = FLAT_RING3_SS64
FLAT_USER_CS32: Final = FLAT_RING3_CS32
FLAT_USER_CS64: Final = FLAT_RING3_CS64
FLAT_USER_SS64: Final = FLAT_RING3_SS64

# --- Xen's region of the address space ---------------------------------------------------------
HYPERVISOR_VIRT_START: Final = 0xFFFF_8000_0000_0000
HYPERVISOR_VIRT_END: Final = 0xFFFF_8800_0000_0000
MACH2PHYS_VIRT_START: Final = 0xFFFF_8000_0000_0000
MACH2PHYS_VIRT_END: Final = 0xFFFF_8040_0000_0000


class Segbase(IntEnum):
    """SEGBASE_*: the first argument of set_segment_base."""

    FS = 0
    GS_USER = 1
    GS_KERNEL = 2
    GS_USER_SEL = 3


VGCF_IN_SYSCALL: Final = 1 << 8  # in IretContext.flags: rcx and r11 are not restored


@abi_struct(size64=72)
@dataclass(slots=True)
class IretContext:
    """struct iret_context: what the iret hypercall takes from the kernel's stack."""

    rax: U64
    r11: U64
    rcx: U64
    flags: U64  # VGCF_IN_SYSCALL
    rip: U64
    cs: U64
    rflags: U64
    rsp: U64
    ss: U64
