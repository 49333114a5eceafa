"""How structures are laid out, packed and unpacked for the two word sizes."""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypervisor.abi.event_channel
import hypervisor.abi.xen
from hypervisor.abi.layout import (
    I16,
    U8,
    U16,
    U32,
    U64,
    Aligned64,
    ArrayOf,
    ByWidth,
    CharArray,
    GuestPtr,
    XenLong,
    XenUlong,
    abi_struct,
    declared,
    layout,
)
from hypervisor.abi.width import Width

WIDTHS = list(Width)


@abi_struct(size=8)
@dataclass(slots=True)
class Pair:
    """Two numbers, to be nested."""

    small: U16
    large: U32


@abi_struct(size32=56, size64=72)
@dataclass(slots=True)
class Everything:
    """One field of each kind, in an order that needs padding."""

    byte: U8
    word: XenUlong
    signed: XenLong
    wide: U64
    aligned: Aligned64
    name: CharArray(3)  # type: ignore[valid-type]
    pairs: ArrayOf(Pair, 1)  # type: ignore[valid-type]
    short: I16
    handle: GuestPtr
    either: ByWidth(U32, U64)  # type: ignore[valid-type]


OFFSETS = {
    32: [0, 4, 8, 12, 24, 32, 36, 44, 48, 52],
    64: [0, 8, 16, 24, 32, 40, 44, 52, 56, 64],
}


def everything(width: Width) -> st.SearchStrategy[Everything]:
    word = st.integers(0, (1 << width.bits) - 1)
    half = 1 << width.bits - 1
    return st.builds(
        Everything,
        byte=st.integers(0, 255),
        word=word,
        signed=st.integers(-half, half - 1),
        wide=st.integers(0, (1 << 64) - 1),
        aligned=st.integers(0, (1 << 64) - 1),
        name=st.binary(min_size=3, max_size=3),
        pairs=st.lists(
            st.builds(Pair, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF)),
            min_size=1,
            max_size=1,
        ),
        short=st.integers(-(1 << 15), (1 << 15) - 1),
        handle=word,
        either=word,
    )


def sample() -> Everything:
    return Everything(1, 2, -3, 4, 5, b"abc", [Pair(6, 7)], -8, 9, 10)


@pytest.mark.parametrize("width", WIDTHS, ids=lambda width: width.name)
def test_fields_lie_where_the_compiler_puts_them(width: Width) -> None:
    shape = layout(Everything, width)
    assert [shape.offset(name) for name in shape.field_names] == OFFSETS[width.bits]


@pytest.mark.parametrize("width", WIDTHS, ids=lambda width: width.name)
@given(data=st.data())
def test_what_was_packed_is_unpacked(width: Width, data: st.DataObject) -> None:
    value = data.draw(everything(width))
    shape = layout(Everything, width)
    assert shape.unpack_from(shape.pack(value)) == value


@pytest.mark.parametrize("width", WIDTHS, ids=lambda width: width.name)
@pytest.mark.parametrize("cls", declared(), ids=lambda cls: cls.__name__)
def test_bytes_survive_but_for_padding(cls: type[Any], width: Width) -> None:
    """Packing what was unpacked gives the same bytes where fields are, and zeros between."""
    shape = layout(cls, width)
    raw = bytes(1 + at % 255 for at in range(shape.size))
    packed = shape.pack(shape.unpack_from(raw))
    assert shape.unpack_from(packed) == shape.unpack_from(raw)
    inside = {
        at
        for name in shape.field_names
        for at in range(shape.offset(name), shape.offset(name) + shape.size_of(name))
    }
    assert all(byte == 0 for at, byte in enumerate(packed) if at not in inside)


def test_a_structure_is_unpacked_at_an_offset() -> None:
    shape = layout(Pair, Width.X86_64)
    buffer = bytearray(24)
    shape.pack_into(buffer, 11, Pair(0x1234, 0x89AB_CDEF))
    assert shape.unpack_from(buffer, 11) == Pair(0x1234, 0x89AB_CDEF)
    assert bytes(buffer[:11]) == bytes(11)
    assert bytes(buffer[19:]) == bytes(5)


def test_numbers_are_little_endian() -> None:
    assert layout(Pair, Width.X86_32).pack(Pair(0x0102, 0x03040506)).hex() == "0201000006050403"


@pytest.mark.parametrize(
    ("field", "value"),
    [("byte", 256), ("byte", -1), ("short", 1 << 15), ("wide", 1 << 64), ("wide", -1)],
)
def test_a_number_that_does_not_fit_is_refused(field: str, value: int) -> None:
    wrong = sample()
    setattr(wrong, field, value)
    with pytest.raises(struct.error):
        layout(Everything, Width.X86_64).pack(wrong)


def test_a_word_of_64_bits_does_not_fit_a_32_bit_guest() -> None:
    wide = sample()
    wide.word = 1 << 32
    assert layout(Everything, Width.X86_64).pack(wide)
    with pytest.raises(struct.error):
        layout(Everything, Width.X86_32P).pack(wide)


def test_an_array_of_another_length_is_refused() -> None:
    wrong = sample()
    wrong.pairs = []
    with pytest.raises(ValueError, match=r"^0 elements in an array of 1$"):
        layout(Everything, Width.X86_64).pack(wrong)


def test_a_short_buffer_is_refused() -> None:
    with pytest.raises(struct.error):
        layout(Pair, Width.X86_64).unpack_from(bytes(7))


def test_a_wrong_size_is_refused_where_it_is_declared() -> None:
    with pytest.raises(TypeError, match=r"^Wrong: 4 bytes for 32-bit guests, stated 8$"):

        @abi_struct(size=8)
        @dataclass(slots=True)
        class Wrong:
            number: U32


def test_a_field_without_an_abi_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"int'> is no type of the ABI$"):

        @abi_struct(size=4)
        @dataclass(slots=True)
        class Wrong:
            number: int


def test_nested_structures_come_out_as_such() -> None:
    shape = layout(hypervisor.abi.xen.VcpuInfo, Width.X86_32)
    info = shape.unpack_from(bytes(range(64)))
    assert isinstance(info.arch, hypervisor.abi.xen.ArchVcpuInfo)
    assert info.arch.cr2 == 0x0B0A0908
    assert asdict(info.time)["version"] == 0x23222120
