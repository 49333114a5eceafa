"""Where an address lies in memory, by the tables that the CPU runs on (SDM 3A 4.3-4.5)."""

from __future__ import annotations

from typing import Final

from hypervisor.machine.memory import MachineMemory
from hypervisor.machine.state import CpuState

_CR0_PG: Final = 1 << 31
_CR4_PSE: Final = 1 << 4
_CR4_PAE: Final = 1 << 5
_EFER_LMA: Final = 1 << 10
_FRAME: Final = 0x000F_FFFF_FFFF_F000
_PRESENT: Final = 1
_LARGE: Final = 1 << 7


def physical(memory: MachineMemory, state: CpuState, vaddr: int) -> int | None:
    """The machine address behind a linear one, rights not considered; None when not mapped."""
    if not state.cr0 & _CR0_PG:
        return vaddr
    if not state.cr4 & _CR4_PAE:
        return _two_level(memory, state, vaddr)
    if state.efer & _EFER_LMA:
        return _down(memory, state.cr3 & _FRAME, vaddr, (39, 30, 21, 12))
    l3_maddr = (state.cr3 & 0xFFFF_FFE0) + (vaddr >> 30 & 3) * 8
    if l3_maddr + 8 > memory.size_bytes:
        return None
    l3e = memory.u64[l3_maddr >> 3]
    return _down(memory, l3e & _FRAME, vaddr, (21, 12)) if l3e & _PRESENT else None


def _down(memory: MachineMemory, table: int, vaddr: int, shifts: tuple[int, ...]) -> int | None:
    for shift in shifts:
        maddr = table + (vaddr >> shift & 511) * 8
        if maddr + 8 > memory.size_bytes:
            return None
        entry = memory.u64[maddr >> 3]
        if not entry & _PRESENT:
            return None
        table = entry & _FRAME
        if shift == 12 or (entry & _LARGE and shift < 39):
            return table & ~((1 << shift) - 1) | vaddr & ((1 << shift) - 1)
    return None


def _two_level(memory: MachineMemory, state: CpuState, vaddr: int) -> int | None:
    maddr = (state.cr3 & 0xFFFF_F000) + (vaddr >> 22 & 1023) * 4
    if maddr + 4 > memory.size_bytes:
        return None
    entry = memory.u32[maddr >> 2]
    if not entry & _PRESENT:
        return None
    if entry & _LARGE and state.cr4 & _CR4_PSE:
        return entry & 0xFFC0_0000 | vaddr & 0x3F_FFFF
    maddr = (entry & 0xFFFF_F000) + (vaddr >> 12 & 1023) * 4
    if maddr + 4 > memory.size_bytes:
        return None
    entry = memory.u32[maddr >> 2]
    return entry & 0xFFFF_F000 | vaddr & 0xFFF if entry & _PRESENT else None
