"""Walking page tables as the MMU does, for the VMM's own use (SDM 3A 4.3-4.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from hypervisor.machine.memory import MachineMemory
from hypervisor.x86.paging import (
    PAGE_SIZE,
    PTE_A,
    PTE_D,
    PTE_FRAME,
    PTE_NX,
    PTE_P,
    PTE_PSE,
    PTE_RW,
    PTE_US,
    PagingMode,
)


class Step(NamedTuple):
    """One level of a walk."""

    level: int
    slot: int
    entry_maddr: int
    entry: int


class Walk(NamedTuple):
    """The outcome of a walk: the steps taken and, if the last was present, where the address lies.

    `flags` holds P, RW, US and NX as they combine over all levels.
    """

    steps: tuple[Step, ...]
    maddr: int | None
    flags: int


def root_maddr(mode: PagingMode, cr3: int) -> int:
    """Where the top-level table lies: PAE's may be anywhere at 32 bytes, the others at a page."""
    return cr3 & (0xFFFFFFE0 if mode.levels == 3 else PTE_FRAME)


def walk(memory: MachineMemory, mode: PagingMode, cr3: int, vaddr: int) -> Walk:
    """Follow `vaddr` from the table in `cr3`; stops at the first entry that is not present."""
    steps: list[Step] = []
    table = root_maddr(mode, cr3)
    rights = PTE_RW | PTE_US
    nx = 0
    words = memory.u32 if mode.entry_bytes == 4 else memory.u64
    shift = mode.entry_shift
    for level in range(mode.levels, 0, -1):
        slot = mode.index(vaddr, level)
        maddr = table + (slot << shift)
        if maddr + mode.entry_bytes > memory.size_bytes:
            return Walk(tuple(steps), None, 0)
        entry = words[maddr >> shift]
        steps.append(Step(level, slot, maddr, entry))
        if not entry & PTE_P:
            return Walk(tuple(steps), None, 0)
        if not (mode.levels == 3 and level == 3):  # PAE's L3 has no RW, US
            rights &= entry
        nx |= entry & PTE_NX
        table = entry & PTE_FRAME
        if level == 1 or (entry & PTE_PSE and level < 4 and not (mode.levels == 3 and level == 3)):
            reach = mode.reach(level)
            target = (table & ~(reach - 1)) | (vaddr & (reach - 1))
            return Walk(tuple(steps), target, PTE_P | rights | nx)
    raise AssertionError("a walk ends at level 1")


#: (cr3, vaddr, write) to the machine address; None where the walk has to be done in full.
QuickWalk = Callable[[int, int, bool], "int | None"]


def quick_walk(memory: MachineMemory, mode: PagingMode) -> QuickWalk:
    """The commonest outcome of a walk, found quickly: a small page whose entries allow the access
    and have the accessed and dirty bits that it would set."""
    return _quick_legacy(memory) if mode.levels == 2 else _quick_64(memory, mode.levels)


_P_PSE: Final = PTE_P | PTE_PSE
_UPPER: Final = (PTE_P, PTE_P | PTE_RW)  # by write
_LEAF: Final = (PTE_P | PTE_A, PTE_P | PTE_RW | PTE_A | PTE_D)


def _quick_legacy(memory: MachineMemory) -> QuickWalk:
    u32, size = memory.u32, memory.size_bytes

    def quick(cr3: int, vaddr: int, write: bool) -> int | None:
        entry = u32[(cr3 & 0xFFFF_F000) + (vaddr >> 20 & 0xFFC) >> 2]
        if entry & (_UPPER[write] | PTE_PSE) != _UPPER[write] or entry >= size:
            return None
        entry = u32[(entry & 0xFFFF_F000) + (vaddr >> 10 & 0xFFC) >> 2]
        if entry & _LEAF[write] != _LEAF[write]:
            return None
        return entry & 0xFFFF_F000 | vaddr & 0xFFF

    return quick


def _quick_64(memory: MachineMemory, levels: int) -> QuickWalk:
    """In PAE's top level an entry has no rights, only P."""
    u64, size = memory.u64, memory.size_bytes

    def quick(cr3: int, vaddr: int, write: bool) -> int | None:
        upper = _UPPER[write]
        if levels == 3:
            entry = u64[(cr3 & 0xFFFF_FFE0) + (vaddr >> 27 & 0x18) >> 3]
            if not entry & PTE_P:
                return None
        else:
            entry = u64[(cr3 & PTE_FRAME) + (vaddr >> 36 & 0xFF8) >> 3]
            if entry & upper != upper or entry & PTE_FRAME >= size:
                return None
            entry = u64[(entry & PTE_FRAME) + (vaddr >> 27 & 0xFF8) >> 3]
            if entry & (upper | PTE_PSE) != upper:
                return None
        if entry & PTE_FRAME >= size:
            return None
        entry = u64[(entry & PTE_FRAME) + (vaddr >> 18 & 0xFF8) >> 3]
        if entry & (upper | PTE_PSE) != upper or entry & PTE_FRAME >= size:
            return None
        entry = u64[(entry & PTE_FRAME) + (vaddr >> 9 & 0xFF8) >> 3]
        if entry & _LEAF[write] != _LEAF[write]:
            return None
        return entry & PTE_FRAME | vaddr & 0xFFF

    return quick


#: (cr3, vaddr) to the machine address of its leaf entry; None where there is no leaf table.
FindLeaf = Callable[[int, int], "int | None"]


def leaf_finder(memory: MachineMemory, mode: PagingMode) -> FindLeaf:
    """Finds the entry that maps a page, whatever it and those above allow: what Xen reads through
    its linear map of the page tables (guest_get_eff_l1e, map_guest_l1e)."""
    if mode.levels == 2:
        return _leaf_legacy(memory)
    return _leaf_pae(memory) if mode.levels == 3 else _leaf_long(memory)


def _leaf_legacy(memory: MachineMemory) -> FindLeaf:
    u32, size = memory.u32, memory.size_bytes

    def find(cr3: int, vaddr: int) -> int | None:
        entry = u32[(cr3 & 0xFFFF_F000) + (vaddr >> 20 & 0xFFC) >> 2]
        if entry & (PTE_P | PTE_PSE) != PTE_P or entry >= size:
            return None
        return (entry & 0xFFFF_F000) + (vaddr >> 10 & 0xFFC)

    return find


def _leaf_pae(memory: MachineMemory) -> FindLeaf:
    u64, size = memory.u64, memory.size_bytes

    def find(cr3: int, vaddr: int) -> int | None:
        entry = u64[(cr3 & 0xFFFF_FFE0) + (vaddr >> 27 & 0x18) >> 3]
        if not entry & PTE_P or entry & PTE_FRAME >= size:
            return None
        entry = u64[(entry & PTE_FRAME) + (vaddr >> 18 & 0xFF8) >> 3]
        if entry & _P_PSE != PTE_P or entry & PTE_FRAME >= size:
            return None
        return (entry & PTE_FRAME) + (vaddr >> 9 & 0xFF8)

    return find


def _leaf_long(memory: MachineMemory) -> FindLeaf:
    """An address that is not canonical has no leaf."""
    u64, size = memory.u64, memory.size_bytes

    def find(cr3: int, vaddr: int) -> int | None:
        if vaddr >> 47 and vaddr >> 47 != 0x1FFFF:
            return None
        entry = u64[(cr3 & PTE_FRAME) + (vaddr >> 36 & 0xFF8) >> 3]
        table = entry & PTE_FRAME
        if not entry & PTE_P or table >= size:
            return None
        entry = u64[table + (vaddr >> 27 & 0xFF8) >> 3]
        table = entry & PTE_FRAME
        if not entry & PTE_P or table >= size:
            return None
        entry = u64[table + (vaddr >> 18 & 0xFF8) >> 3]
        table = entry & PTE_FRAME
        if entry & _P_PSE != PTE_P or table >= size:
            return None
        return table + (vaddr >> 9 & 0xFF8)

    return find


def page_chunks(vaddr: int, size: int) -> list[tuple[int, int]]:
    """Cut [vaddr, vaddr + size) at page ends: (vaddr, length) each."""
    chunks = []
    while size > 0:
        length = min(size, PAGE_SIZE - (vaddr & (PAGE_SIZE - 1)))
        chunks.append((vaddr, length))
        vaddr += length
        size -= length
    return chunks
