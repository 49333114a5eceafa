"""Reads page tables out of machine memory, by the manuals alone: what a guest would find mapped.

Knows nothing of the code under test, so the shifts and masks stand here a second time (SDM 3A 4.3
to 4.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypervisor.machine.memory import MachineMemory

SHIFTS = {2: (12, 22), 3: (12, 21, 30), 4: (12, 21, 30, 39)}
FRAME_BITS = 0x000F_FFFF_FFFF_F000


@dataclass(frozen=True)
class Leaf:
    """One present leaf, and the upper entries that led to it, the top one first."""

    mfn: int
    flags: int
    path: tuple[int, ...]
    tables: tuple[int, ...]  # the frames walked through, the root first


def walk_everything(memory: MachineMemory, levels: int, root_mfn: int) -> dict[int, Leaf]:
    """Each mapped page of an address space, by its sign-extended virtual address."""
    found = dict(_walk(memory, levels, levels, root_mfn, 0, (), (root_mfn,)))
    return {_sign_extend(vaddr, levels): leaf for vaddr, leaf in found.items()}


def _walk(
    memory: MachineMemory,
    levels: int,
    level: int,
    mfn: int,
    base: int,
    path: tuple[int, ...],
    tables: tuple[int, ...],
) -> Iterator[tuple[int, Leaf]]:
    entry_bytes = 4 if levels == 2 else 8
    raw = memory.read(mfn << 12, 4096)
    slots = 4 if (levels, level) == (3, 3) else 4096 // entry_bytes
    assert not any(raw[slots * entry_bytes :])
    for slot in range(slots):
        entry = int.from_bytes(raw[slot * entry_bytes :][:entry_bytes], "little")
        if not entry:
            continue
        assert entry & 1, f"entry {entry:#x} is neither empty nor present"
        vaddr = base + (slot << SHIFTS[levels][level - 1])
        target = (entry & FRAME_BITS) >> 12
        if level == 1:
            yield vaddr, Leaf(target, entry & ~FRAME_BITS, path, tables)
        else:
            below = (*tables, target)
            yield from _walk(memory, levels, level - 1, target, vaddr, (*path, entry), below)


def _sign_extend(vaddr: int, levels: int) -> int:
    return vaddr | 0xFFFF_0000_0000_0000 if levels == 4 and vaddr >> 47 else vaddr
