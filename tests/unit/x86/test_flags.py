"""Addresses that can be (SDM 1 3.3.7.1), and exceptions with error codes (SDM 3A table 6-1)."""

from __future__ import annotations

import pytest

from hypervisor.x86.flags import HAS_ERROR_CODE, Vector, is_canonical


@pytest.mark.parametrize(
    ("vaddr", "canonical"),
    [
        (0, True),
        ((1 << 47) - 1, True),
        (1 << 47, False),
        (0xFFFF_7FFF_FFFF_FFFF, False),
        (0xFFFF_8000_0000_0000, True),
        ((1 << 64) - 1, True),
    ],
)
def test_canonical(vaddr: int, canonical: bool) -> None:
    assert is_canonical(vaddr) is canonical


def test_error_codes() -> None:
    names = {Vector(vector).name for vector in HAS_ERROR_CODE}
    assert names == {"DF", "TS", "NP", "SS", "GP", "PF", "AC"}
