"""The ELF reader: what it finds, and what it refuses with which words."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.domain.elf import ImageError, parse_elf
from tests.support.elf_writer import (
    KernelSpec,
    LoadSegment,
    Symbol,
    generic_notes,
    write_elf,
)

FULL = KernelSpec(
    bits=32,
    entry=0x1010,
    segments=(LoadSegment(0x1000, b"text" * 100), LoadSegment(0x5004, b"data", memsz=0x900)),
    notes=generic_notes(pae="yes"),
    note_sections=[generic_notes(pae="no")],
    xen_guest="LOADER=generic",
    symbols=[Symbol("start", 0x1010), Symbol("main", 0x1020)],
)


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize("bits", [32, 64])
def test_headers_agree_with_pyelftools(bits: int) -> None:
    data = write_elf(FULL.but(bits=bits))
    ours = parse_elf(data)
    theirs = ELFFile(io.BytesIO(data))
    assert ours.entry == theirs.header.e_entry
    assert [(s.offset, s.vaddr, s.paddr, s.filesz, s.memsz, s.flags) for s in ours.segments] == [
        (p.p_offset, p.p_vaddr, p.p_paddr, p.p_filesz, p.p_memsz, p.p_flags)
        for p in (s.header for s in theirs.iter_segments())
    ]
    assert [(ours.section_name(s).decode(), s.offset, s.size, s.link) for s in ours.sections] == [
        (s.name, s.header.sh_offset, s.header.sh_size, s.header.sh_link)
        for s in theirs.iter_sections()
    ]


def test_symbol_table_comes_with_its_strings() -> None:
    elf = parse_elf(write_elf(FULL))
    tables = elf.symbol_table()
    assert tables is not None
    assert b"main" in bytes(elf.bytes_of(tables[1].offset, tables[1].size))


def test_symbol_table_reaching_beyond_the_file_does_not_count() -> None:
    data = write_elf(FULL)
    size_at = data.index(parse_elf(data).symbol_table()[0].pack(32)) + 20  # type: ignore[index]
    assert parse_elf(patched(data, size_at, b"\xff\xff\xff\x7f")).symbol_table() is None


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", r"^not an ELF file: it is empty$"),
        (b"Hello, world\n", r"^not an ELF file: it begins with b'Hell', not with b'\\x7fELF'$"),
        (b"\x7fELF\x01\x01", r"^truncated ELF file: it ends at 0x6, inside its identification$"),
        (
            write_elf(FULL)[:40],
            r"^truncated ELF file: it ends at 0x28, inside its header of 0x34 bytes$",
        ),
        (
            write_elf(FULL)[:60],
            r"^truncated ELF file: its program headers reach to 0x94, the file ends at 0x3c$",
        ),
        (
            write_elf(KernelSpec(segments=[LoadSegment(0, b"x" * 64)]))[:-1],
            r"^truncated ELF file: segment 0 reaches to 0x98, the file ends at 0x97$",
        ),
        (
            write_elf(FULL)[:-1],
            r"^truncated ELF file: its section headers reach to 0x\w+, the file ends at 0x\w+$",
        ),
        (
            write_elf(KernelSpec(machine=40)),
            r"^not an x86 kernel: ELF machine 40 in a 32-bit file$",
        ),
        (
            write_elf(KernelSpec(machine=62)),
            r"^not an x86 kernel: ELF machine 62 in a 32-bit file$",
        ),
        (
            patched(write_elf(KernelSpec()), 4, b"\x03"),
            r"^not a 32-bit or 64-bit ELF file: its class is 3$",
        ),
        (
            patched(write_elf(KernelSpec()), 5, b"\x02"),
            r"^not a little-endian ELF file: its data encoding is 2$",
        ),
        (
            patched(write_elf(KernelSpec()), 42, b"\x38"),
            r"^bad ELF file: program headers of 56 bytes each, want 32$",
        ),
        (
            patched(write_elf(KernelSpec()), 52 + 20, b"\x01\0\0\0"),
            r"^bad ELF file: segment 0 has 0x40 bytes for 0x1 bytes of memory$",
        ),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[1:40],
)
def test_refuses_with_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        parse_elf(data)


@given(st.data())
def test_damage_never_raises_anything_but_an_image_error(data: st.DataObject) -> None:
    good = write_elf(FULL)
    at = data.draw(st.integers(0, 51) | st.integers(len(good) - 400, len(good) - 1))
    bad = patched(good, at, data.draw(st.binary(min_size=1, max_size=8)))[: len(good)]
    cut = data.draw(st.integers(0, len(good)))
    with suppress(ImageError):
        elf = parse_elf(bad[:cut])
        elf.symbol_table()
        elf.section_named(b"__xen_guest")
