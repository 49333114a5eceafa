"""Walking page tables as the MMU does, for the VMM's own use (SDM 3A 4.3-4.5)."""

from __future__ import annotations

from typing import NamedTuple

from hypervisor.machine.memory import MachineMemory
from hypervisor.x86.paging import (
    PAGE_SIZE,
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


def page_chunks(vaddr: int, size: int) -> list[tuple[int, int]]:
    """Cut [vaddr, vaddr + size) at page ends: (vaddr, length) each."""
    chunks = []
    while size > 0:
        length = min(size, PAGE_SIZE - (vaddr & (PAGE_SIZE - 1)))
        chunks.append((vaddr, length))
        vaddr += length
        size -= length
    return chunks
