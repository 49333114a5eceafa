"""Writes small ELF files: kernels for tests, exact to the byte and wrong on demand.

A `KernelSpec` describes segments, notes, sections and symbols; `write_elf` lays them out one after
the other. Written independently of the reader under test (which pyelftools checks as well).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypervisor.abi.elfnote import ElfNote

PF_RWX = 7
Note = tuple[int, bytes]


@dataclass(frozen=True)
class LoadSegment:
    """One PT_LOAD."""

    paddr: int
    data: bytes
    memsz: int = 0  # 0: as long as data
    vaddr: int | None = None  # None: as paddr
    flags: int = PF_RWX


@dataclass(frozen=True)
class Symbol:
    """One entry of the symbol table, a function in section 1."""

    name: str
    value: int
    kind: int = 2
    section: int = 1


@dataclass(frozen=True)
class KernelSpec:
    """What goes into the file."""

    bits: int = 32
    entry: int = 0
    segments: Sequence[LoadSegment] = (LoadSegment(0, b"\x90" * 64),)
    notes: Sequence[Note] = ()
    note_sections: Sequence[Sequence[Note]] = ()  # SHT_NOTE sections beyond the PT_NOTE segment
    xen_guest: str | None = None
    symbols: Sequence[Symbol] = ()
    machine: int | None = None
    note_segment_size: int | None = None  # a p_filesz that is not that of the notes
    extra_sections: Sequence[tuple[str, int, bytes]] = field(default=())

    def but(self, **changes: object) -> KernelSpec:
        """The same with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def text(value: str) -> bytes:
    """A string note's contents."""
    return value.encode() + b"\0"


def word(value: int, bits: int = 32) -> bytes:
    """A numeric note's contents."""
    return value.to_bytes(bits // 8, "little")


def generic_notes(pae: str | None = None, **numbers: int) -> list[Note]:
    """What Xen insists on, the PAE mode, and numeric notes by name (64-bit values)."""
    notes: list[Note] = [
        (ElfNote.GUEST_OS, text("test")),
        (ElfNote.XEN_VERSION, text("xen-3.0")),
        (ElfNote.LOADER, text("generic")),
    ]
    if pae is not None:
        notes.append((ElfNote.PAE_MODE, text(pae)))
    return notes + [(ElfNote[name], word(value, 64)) for name, value in numbers.items()]


def pack_notes(notes: Sequence[Note], owner: bytes = b"Xen\0") -> bytes:
    """Notes as they stand in a file."""
    return b"".join(
        struct.pack("<III", len(owner), len(desc), kind) + _pad4(owner) + _pad4(desc)
        for kind, desc in notes
    )


def write_elf(spec: KernelSpec) -> bytes:
    """The file: headers, segments, notes, sections, section headers."""
    is_64 = spec.bits == 64
    header_bytes, phdr_bytes = (64, 56) if is_64 else (52, 32)
    phnum = len(spec.segments) + bool(spec.notes)
    out = bytearray(header_bytes + phnum * phdr_bytes)
    phdrs = []
    for segment in spec.segments:
        offset = _append(out, segment.data)
        vaddr = segment.paddr if segment.vaddr is None else segment.vaddr
        memsz = segment.memsz or len(segment.data)
        phdrs.append((1, segment.flags, offset, vaddr, segment.paddr, len(segment.data), memsz))
    if spec.notes:
        notes = pack_notes(spec.notes)
        size = len(notes) if spec.note_segment_size is None else spec.note_segment_size
        phdrs.append((4, 4, _append(out, notes), 0, 0, size, 0))
    sections = _sections(spec)
    shoff, shnum = _append_sections(out, sections, is_64)
    for number, phdr in enumerate(phdrs):
        at = header_bytes + number * phdr_bytes
        out[at : at + phdr_bytes] = _phdr(phdr, is_64)
    machine = spec.machine if spec.machine is not None else (62 if is_64 else 3)
    ident = b"\x7fELF" + bytes([2 if is_64 else 1, 1, 1]) + bytes(9)
    out[:header_bytes] = ident + struct.pack(
        "<HHIQQQIHHHHHH" if is_64 else "<HHIIIIIHHHHHH",
        2, machine, 1, spec.entry, header_bytes, shoff, 0,
        header_bytes, phdr_bytes, phnum, 64 if is_64 else 40, shnum, 1 if shnum else 0,
    )  # fmt: skip
    return bytes(out)


@dataclass
class _Section:
    name: str
    kind: int
    data: bytes
    link: int = 0
    entsize: int = 0


def _sections(spec: KernelSpec) -> list[_Section]:
    """Those behind the null section and the name table (index 1)."""
    sections = [_Section(".note", 7, pack_notes(notes)) for notes in spec.note_sections]
    if spec.xen_guest is not None:
        sections.append(_Section("__xen_guest", 1, spec.xen_guest.encode() + b"\0"))
    sections += [_Section(name, kind, data) for name, kind, data in spec.extra_sections]
    if spec.symbols:
        names, table = _symbol_table(spec)
        index = len(sections) + 2
        entsize = 24 if spec.bits == 64 else 16
        sections.append(_Section(".symtab", 2, table, link=index + 1, entsize=entsize))
        sections.append(_Section(".strtab", 3, names))
    return sections


def _symbol_table(spec: KernelSpec) -> tuple[bytes, bytes]:
    names = bytearray(b"\0")
    table = bytearray(24 if spec.bits == 64 else 16)
    for symbol in spec.symbols:
        at = len(names)
        names += symbol.name.encode() + b"\0"
        info = symbol.kind
        if spec.bits == 64:
            table += struct.pack("<IBBHQQ", at, info, 0, symbol.section, symbol.value, 0)
        else:
            table += struct.pack("<IIIBBH", at, symbol.value, 0, info, 0, symbol.section)
    return bytes(names), bytes(table)


def _append_sections(out: bytearray, sections: list[_Section], is_64: bool) -> tuple[int, int]:
    if not sections:
        return 0, 0
    names = bytearray(b"\0.shstrtab\0")
    name_at = []
    for section in sections:
        name_at.append(len(names))
        names += section.name.encode() + b"\0"
    rows: list[tuple[int, ...]] = [
        (0,) * 10,
        (1, 3, 0, 0, _append(out, bytes(names)), len(names), 0, 0, 1, 0),
    ]
    for section, name in zip(sections, name_at, strict=True):
        offset = _append(out, section.data)
        row = (name, section.kind, 0, 0, offset, len(section.data), section.link, 0, 4)
        rows.append((*row, section.entsize))
    shoff = _append(out, b"")
    for header in rows:
        out += struct.pack("<IIQQQQIIQQ" if is_64 else "<10I", *header)
    return shoff, len(rows)


def _phdr(fields: tuple[int, ...], is_64: bool) -> bytes:
    kind, flags, offset, vaddr, paddr, filesz, memsz = fields
    if is_64:
        return struct.pack("<IIQQQQQQ", kind, flags, offset, vaddr, paddr, filesz, memsz, 8)
    return struct.pack("<8I", kind, offset, vaddr, paddr, filesz, memsz, flags, 4)


def _append(out: bytearray, data: bytes) -> int:
    out.extend(bytes(-len(out) % 8))
    at = len(out)
    out.extend(data)
    return at


def _pad4(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
