"""Segment descriptors, taken apart (SDM 3A 3.4.5)."""

from __future__ import annotations

import pytest

from hypervisor.x86.descriptor import (
    DESC_CODE,
    DESC_G,
    DESC_P,
    DESC_RW,
    DESC_S,
    desc_base,
    desc_dpl,
    desc_limit,
    is_data_segment,
    is_readable,
    is_writable_data,
    unpack,
)

DATA = DESC_P | DESC_S
CODE = DATA | DESC_CODE


def test_the_base_is_in_three_places() -> None:
    assert desc_base(0xAB00_00CD_EF12_0000) == 0xABCD_EF12


@pytest.mark.parametrize(
    ("desc", "limit"), [(0x000F_0000_0000_1234, 0xF1234), (0x0000_0000_0000_0000, 0)]
)
def test_the_limit_is_in_two(desc: int, limit: int) -> None:
    assert desc_limit(desc) == limit
    assert desc_limit(desc | DESC_G) == limit << 12 | 0xFFF


def test_the_privilege_level() -> None:
    assert [desc_dpl(ring << 45) for ring in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("desc", "is_data", "is_stack", "readable"),
    [
        (DATA, True, False, True),
        (DATA | DESC_RW, True, True, True),
        (CODE, False, False, False),
        (CODE | DESC_RW, False, False, True),
        (DESC_P | DESC_RW, False, False, False),  # a system descriptor
    ],
    ids=["read-only data", "data", "execute-only code", "code", "system"],
)
def test_what_registers_may_hold_it(
    desc: int, is_data: bool, is_stack: bool, readable: bool
) -> None:
    assert (is_data_segment(desc), is_writable_data(desc), is_readable(desc)) == (
        is_data,
        is_stack,
        readable,
    )


def test_a_register_keeps_base_limit_and_the_high_word() -> None:
    assert unpack(0x00CF_FB00_0000_FFFF) == (0, 0xFFFF_FFFF, 0x00CF_FB00)
