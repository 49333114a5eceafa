"""The bits of a page-table entry by name, as the SDM and Xen call them.

Names are those of the SDM (3A 4.3 to 4.5): P RW US PWT PCD A D PAT PSE G NX. Bits that
software may use are `AVLn`, where n is the bit. Of these Xen uses one in the leaves of 64-bit
guests: GUEST_KERNEL says that the guest did not set US and Xen did (_PAGE_GUEST_KERNEL).
"""

from __future__ import annotations

from typing import Final

from hypervisor.mm.entries import PTE_GUEST_KERNEL
from hypervisor.x86.paging import (
    PTE_A,
    PTE_AVAIL,
    PTE_D,
    PTE_G,
    PTE_NX,
    PTE_P,
    PTE_PAT,
    PTE_PCD,
    PTE_PWT,
    PTE_RW,
    PTE_US,
    PagingMode,
)

_LOW: Final = (
    (PTE_P, "P"),
    (PTE_RW, "RW"),
    (PTE_US, "US"),
    (PTE_PWT, "PWT"),
    (PTE_PCD, "PCD"),
    (PTE_A, "A"),
    (PTE_D, "D"),
)
_HIGH_AVAILABLE: Final = range(52, 63)


def flag_names(mode: PagingMode, level: int, entry: int) -> tuple[str, ...]:
    """The flags of `entry`, which stands in a table of `level`, from bit 0 up."""
    names = [name for bit, name in _LOW if entry & bit]
    if entry & PTE_PAT:  # the same bit as PSE
        names.append("PAT" if level == 1 else "PSE")
    if entry & PTE_G:
        names.append("G")
    names += [f"AVL{bit}" for bit in range(9, 12) if entry & PTE_AVAIL & 1 << bit]
    if mode.entry_bytes == 8:
        names += [_high_name(mode, level, bit) for bit in _HIGH_AVAILABLE if entry >> bit & 1]
        if entry & PTE_NX:
            names.append("NX")
    return tuple(names)


def _high_name(mode: PagingMode, level: int, bit: int) -> str:
    if mode.levels == 4 and level == 1 and 1 << bit == PTE_GUEST_KERNEL:
        return "GUEST_KERNEL"
    return f"AVL{bit}"
