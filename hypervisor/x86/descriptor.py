"""Segment descriptors and selectors (SDM 3A 3.4, 5.2).

A descriptor is an int of 64 bits as it stands in a table. The engine's segment cache holds base,
limit in bytes and `flags`, the descriptor's high dword as it stands.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SEL_RPL: Final = 3
SEL_TI_LDT: Final = 4

DESC_ACCESSED: Final = 1 << 40
DESC_RW: Final = 1 << 41
DESC_CONFORMING: Final = 1 << 42  # code: conforming; data: expand-down
DESC_CODE: Final = 1 << 43
DESC_S: Final = 1 << 44  # code or data, not a system descriptor
DESC_DPL_SHIFT: Final = 45
DESC_DPL: Final = 3 << 45
DESC_P: Final = 1 << 47
DESC_L: Final = 1 << 53
DESC_DB: Final = 1 << 54
DESC_G: Final = 1 << 55


class SegmentCache(NamedTuple):
    """What a segment register holds besides its selector."""

    base: int
    limit: int  # last valid offset, in bytes
    flags: int  # high dword of the descriptor


def desc_base(desc: int) -> int:
    """The base address: bits 16..39 and 56..63."""
    return (desc >> 16 & 0xFFFFFF) | (desc >> 56) << 24


def desc_limit(desc: int) -> int:
    """The last valid offset in bytes, the granularity bit applied."""
    limit = (desc & 0xFFFF) | (desc >> 32 & 0xF0000)
    return limit << 12 | 0xFFF if desc & DESC_G else limit


def desc_dpl(desc: int) -> int:
    """The descriptor privilege level."""
    return desc >> DESC_DPL_SHIFT & 3


def unpack(desc: int) -> SegmentCache:
    """What the CPU would keep of `desc` after loading a segment register with it."""
    return SegmentCache(desc_base(desc), desc_limit(desc), desc >> 32)


def is_data_segment(desc: int) -> bool:
    """Whether `desc` is a present or absent data segment (S set, not code)."""
    return bool(desc & DESC_S) and not desc & DESC_CODE


def is_writable_data(desc: int) -> bool:
    """Whether a stack may lie in it."""
    return is_data_segment(desc) and bool(desc & DESC_RW)


def is_readable(desc: int) -> bool:
    """Whether DS, ES, FS or GS may hold it: data, or readable code."""
    return bool(desc & DESC_S) and bool(not desc & DESC_CODE or desc & DESC_RW)
