"""What a guest may write into an entry of each level, and what Xen makes of it.

The rules are those of Xen 4.17 (L1_DISALLOW_MASK to L4_DISALLOW_MASK, adjust_guest_l1e to
adjust_guest_l4e, FASTPATH_FLAG_WHITELIST in arch/x86/mm.c), with one difference: a PAE guest may
not use bits 52 to 62. Under a 64-bit Xen they are ignored; the PAE mode that the guest really runs
in here reserves them (SDM 3A table 4-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hypervisor.abi.width import Width
from hypervisor.mm.frames import FrameType
from hypervisor.x86.paging import (
    LEGACY,
    LONG,
    PAE,
    PTE_A,
    PTE_AVAIL,
    PTE_D,
    PTE_FRAME,
    PTE_G,
    PTE_NX,
    PTE_PAT,
    PTE_PCD,
    PTE_PWT,
    PTE_RW,
    PTE_US,
)

PAGING_MODE: Final = {Width.X86_32: LEGACY, Width.X86_32P: PAE, Width.X86_64: LONG}

#: A software bit of 64-bit guests' leaves (_PAGE_GUEST_KERNEL in Xen's x86_64/page.h). Another,
#: _PAGE_GNTTAB, is only in a Xen that is built for debugging; in others guests may set bit 62.
PTE_GUEST_KERNEL: Final = 1 << 52

_UNCACHED: Final = PTE_PWT | PTE_PCD | PTE_PAT  # bit 7 is PSE above the leaf: no superpages either
_HIGH: Final = 0xFFF << 52
_NO_HIGH: Final = _HIGH & ~PTE_NX
_AVAIL_HIGH: Final = 0x7FF << 52

#: Bits that an entry of each level must not have set, by width.
#: A leaf may be global; an uncached one needs a domain with hardware, which no domain here has.
DISALLOWED: Final[dict[Width, tuple[int, ...]]] = {
    Width.X86_32: (0, _UNCACHED, _UNCACHED | PTE_G),
    Width.X86_32P: (
        0,
        _UNCACHED | _NO_HIGH,
        _UNCACHED | PTE_G | _NO_HIGH,
        _UNCACHED | PTE_G | _HIGH,
    ),
    Width.X86_64: (
        0,
        _UNCACHED,
        _UNCACHED | PTE_G,
        _UNCACHED | PTE_G,
        _UNCACHED | PTE_G,
    ),
}

#: Bits of an entry that may change without its references changing (FASTPATH_FLAG_WHITELIST). RW
#: is none of them above the leaf either: a linear entry must not be writable.
CHEAP_BITS: Final = PTE_NX | _AVAIL_HIGH | PTE_AVAIL | PTE_G | PTE_D | PTE_A | PTE_US

#: The frame number with all bits set: what a guest's "no frame" looks like in an entry.
INVALID_PTE_MFN: Final = PTE_FRAME >> 12

LEVEL_OF: Final[Mapping[int, int]] = {
    FrameType.L1: 1,
    FrameType.L2: 2,
    FrameType.XEN_L2: 2,
    FrameType.L3: 3,
    FrameType.L4: 4,
}
TYPE_OF_LEVEL: Final = (
    FrameType.NONE,
    FrameType.L1,
    FrameType.L2,
    FrameType.L3,
    FrameType.L4,
)


def adjusted(width: Width, level: int, entry: int) -> int:
    """A present entry with the bits that Xen forces.

    An L4's are accessed from the start: Xen runs on copies of them, whose A bits it does not look
    for (adjust_guest_l4e).
    """
    if width is Width.X86_64:
        if level > 1:
            return entry | PTE_US | PTE_A if level == 4 else entry | PTE_US
        if not entry & PTE_US:
            return entry | PTE_US | PTE_GUEST_KERNEL
        return entry if entry & PTE_GUEST_KERNEL else entry | PTE_G
    if level == 3:
        return entry | PTE_US | PTE_RW
    return entry
