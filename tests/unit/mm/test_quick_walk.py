"""The quick walk finds what the full walk finds, or leaves it to that."""

from __future__ import annotations

import random

import pytest

from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.walk import quick_walk, walk
from hypervisor.x86.paging import (
    LEGACY,
    LONG,
    PAE,
    PTE_A,
    PTE_D,
    PTE_P,
    PTE_PSE,
    PTE_RW,
    PTE_US,
    PagingMode,
)

MEMORY_BYTES = 64 << 12
MODES = (LEGACY, PAE, LONG)
COMMON = PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D


def random_tables(mode: PagingMode, chance: random.Random) -> MachineMemory:
    """Memory in which every frame may be a table, with all kinds of entries; some beyond it."""
    memory = MachineMemory(MEMORY_BYTES)
    words = memory.u32 if mode.entry_bytes == 4 else memory.u64
    frames = MEMORY_BYTES >> 12
    for index in range(len(words)):
        flags = COMMON
        if chance.random() < 0.2:
            flags &= ~chance.choice((PTE_P, PTE_RW, PTE_US, PTE_A, PTE_D))
        if chance.random() < 0.05:
            flags |= PTE_PSE
        words[index] = chance.randrange(frames + 2) << 12 | flags
    return memory


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_quick_walk_agrees_with_the_walk(mode: PagingMode) -> None:
    chance = random.Random(mode.levels)
    memory = random_tables(mode, chance)
    quick = quick_walk(memory, mode)
    found = 0
    for _ in range(3000):
        cr3 = chance.randrange(MEMORY_BYTES >> 12) << 12
        vaddr = chance.randrange(1 << (48 if mode is LONG else 32))
        write = chance.random() < 0.5
        maddr = quick(cr3, vaddr, write)
        if maddr is None:
            continue
        found += 1
        full = walk(memory, mode, cr3, vaddr)
        assert maddr == full.maddr
        leaf = full.steps[-1]
        assert leaf.level == 1
        assert leaf.entry & PTE_A
        if write:
            assert full.flags & PTE_RW
            assert leaf.entry & PTE_D
    assert found > 500


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("lacking", [PTE_P, PTE_RW, PTE_A, PTE_D])
@pytest.mark.parametrize("write", [False, True])
def test_entry_that_lacks_something_is_left_to_the_walk(
    mode: PagingMode, lacking: int, write: bool
) -> None:
    memory = MachineMemory(MEMORY_BYTES)
    words = memory.u32 if mode.entry_bytes == 4 else memory.u64
    for level in range(mode.levels):
        words[level + 1 << 12 >> mode.entry_shift] = level + 2 << 12 | COMMON
    quick = quick_walk(memory, mode)
    leaf_frame = mode.levels + 1 << 12
    assert quick(0x1000, 0x123, write) == leaf_frame | 0x123
    words[mode.levels << 12 >> mode.entry_shift] &= ~lacking
    expected = leaf_frame | 0x123 if not write and lacking in (PTE_RW, PTE_D) else None
    assert quick(0x1000, 0x123, write) == expected
