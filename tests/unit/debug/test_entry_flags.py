"""Each bit of an entry has its name, by level and width."""

from __future__ import annotations

import pytest

from hypervisor.debug.entry_flags import flag_names
from hypervisor.x86.paging import LEGACY, LONG, PAE, PagingMode

CASES = [
    (LEGACY, 1, 0x1000 | 0x067, "P RW US A D"),
    (LEGACY, 1, 0x19B, "P RW PWT PCD PAT G"),
    (LEGACY, 2, 0x0A1, "P A PSE"),
    (LEGACY, 1, 0xFFFF_FE00, "AVL9 AVL10 AVL11"),
    (PAE, 1, 1 << 63 | 1, "P NX"),
    (PAE, 1, 1 << 52 | 1, "P AVL52"),
    (LONG, 1, 1 << 63 | 1 << 52 | 1 << 62 | 5, "P US GUEST_KERNEL AVL62 NX"),
    (LONG, 2, 1 << 52 | 1, "P AVL52"),
    (LONG, 1, 0x000F_FFFF_FFFF_F000, ""),
    (LONG, 1, 0, ""),
]


@pytest.mark.parametrize(("mode", "level", "entry", "names"), CASES)
def test_flags_are_named_from_bit_0_up(
    mode: PagingMode, level: int, entry: int, names: str
) -> None:
    assert " ".join(flag_names(mode, level, entry)) == names
