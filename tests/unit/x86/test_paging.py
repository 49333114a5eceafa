"""How an address is cut into indexes (SDM 3A 4.3, 4.4, 4.5)."""

from __future__ import annotations

import pytest

from hypervisor.x86.paging import (
    LEGACY,
    LONG,
    PAE,
    PTE_NX,
    PTE_P,
    PTE_RW,
    PagingMode,
    make_pte,
    pte_flags,
    pte_mfn,
)


@pytest.mark.parametrize(
    ("mode", "vaddr", "slots"),
    [
        (LEGACY, 0xFFC0_1ABC, (1023, 1)),
        (LEGACY, 0xFC00_0000, (1008, 0)),
        (PAE, 0xF580_0000, (3, 428, 0)),
        (PAE, 0x4020_3FFF, (1, 1, 3)),
        (LONG, 0xFFFF_8000_0000_0000, (256, 0, 0, 0)),
        (LONG, 0xFFFF_FFFF_8000_0000, (511, 510, 0, 0)),
        (LONG, 0x0000_7FFF_FFFF_FFFF, (255, 511, 511, 511)),
    ],
)
def test_slots_from_the_top_level_down(
    mode: PagingMode, vaddr: int, slots: tuple[int, ...]
) -> None:
    assert tuple(mode.index(vaddr, level) for level in range(mode.levels, 0, -1)) == slots


@pytest.mark.parametrize(
    ("mode", "level", "reach"),
    [(LEGACY, 2, 4 << 20), (PAE, 2, 2 << 20), (PAE, 3, 1 << 30), (LONG, 4, 1 << 39)],
)
def test_what_an_entry_maps(mode: PagingMode, level: int, reach: int) -> None:
    assert mode.reach(level) == reach


def test_a_frame_and_flags_make_an_entry_and_come_out_of_it() -> None:
    entry = make_pte(0x12345, PTE_P | PTE_RW | PTE_NX)
    assert entry == 0x8000_0000_1234_5003
    assert (pte_mfn(entry), pte_flags(entry)) == (0x12345, PTE_P | PTE_RW | PTE_NX)


def test_software_bits_are_no_part_of_the_frame() -> None:
    assert pte_mfn(0xFFF0_0000_0000_0FFF) == 0
