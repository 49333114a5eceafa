"""An ELF file as a loader needs it: headers read once, checked, and kept as plain data.

The headers are read here and not by pyelftools, because every boot would pay 50 to 65 ms for
importing that, and because a loader of hostile files wants each refusal as a sentence with the bad
value in it. The tests compare this reader with pyelftools. Offsets and fields: the ELF
specification (System V gABI, chapters 4 and 5), numbers spelled as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

PT_LOAD: Final = 1
PT_NOTE: Final = 4
PF_X: Final = 1
PF_W: Final = 2
PF_R: Final = 4

SHT_SYMTAB: Final = 2
SHT_STRTAB: Final = 3
SHT_NOTE: Final = 7
SHT_NOBITS: Final = 8

EM_386: Final = 3
EM_X86_64: Final = 62

_MAGIC: Final = b"\x7fELF"
_CLASS_BITS: Final = {1: 32, 2: 64}
_MACHINE_OF_BITS: Final = {32: EM_386, 64: EM_X86_64}
_LITTLE_ENDIAN: Final = 1


class ImageError(ValueError):
    """A kernel image that cannot be started; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class _Class:
    """The structures of one ELF class."""

    ehdr: Struct  # from e_type on, behind the 16 bytes of e_ident
    phdr: Struct
    shdr: Struct
    sym: Struct
    ehdr_bytes: int  # with e_ident


_CLASSES: Final = {
    32: _Class(Struct("<HHIIIIIHHHHHH"), Struct("<8I"), Struct("<10I"), Struct("<IIIBBH"), 52),
    64: _Class(
        Struct("<HHIQQQIHHHHHH"), Struct("<IIQQQQQQ"), Struct("<IIQQQQIIQQ"), Struct("<IBBHQQ"), 64
    ),
}


@dataclass(frozen=True, slots=True)
class ProgramHeader:
    """Elf32_Phdr or Elf64_Phdr."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int

    @property
    def is_loadable(self) -> bool:
        """Xen skips a PT_LOAD that may be neither read, written nor executed (libelf-tools.c)."""
        return self.type == PT_LOAD and bool(self.flags & (PF_R | PF_W | PF_X)) and self.memsz > 0


@dataclass(frozen=True, slots=True)
class SectionHeader:
    """Elf32_Shdr or Elf64_Shdr, fields in the order of the file."""

    name: int  # offset in the section name table
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int

    def pack(self, bits: int) -> bytes:
        """The header as it stands in a file of that class."""
        return _CLASSES[bits].shdr.pack(
            self.name, self.type, self.flags, self.addr, self.offset,
            self.size, self.link, self.info, self.addralign, self.entsize,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ElfFile:
    """The parts of an ELF file that a loader looks at; `data` is the whole file."""

    data: memoryview
    bits: int
    entry: int
    segments: tuple[ProgramHeader, ...]
    sections: tuple[SectionHeader, ...]
    name_section: int  # e_shstrndx

    def bytes_of(self, offset: int, size: int) -> memoryview:
        """A stretch of the file, cut off at its end."""
        return self.data[offset : offset + size]

    def section_name(self, section: SectionHeader) -> bytes:
        """The section's name; empty when the file has no usable name table."""
        if not 0 < self.name_section < len(self.sections):
            return b""
        names = self.sections[self.name_section]
        start = names.offset + section.name
        end = min(names.offset + names.size, start + 64)  # no name that we look for is longer
        return bytes(self.data[start:end]).split(b"\0", 1)[0]

    def section_named(self, name: bytes) -> SectionHeader | None:
        """The first section of that name."""
        return next((s for s in self.sections[1:] if self.section_name(s) == name), None)

    def symbol_table(self) -> tuple[SectionHeader, SectionHeader] | None:
        """The symbol table and its string table, when the file has both, whole."""
        for section in self.sections[1:]:
            if section.type != SHT_SYMTAB or not 0 < section.link < len(self.sections):
                continue
            strings = self.sections[section.link]
            if strings.type == SHT_STRTAB and self._holds(section) and self._holds(strings):
                return section, strings
        return None

    def _holds(self, section: SectionHeader) -> bool:
        return section.offset + section.size <= len(self.data)


def parse_elf(data: bytes | memoryview) -> ElfFile:
    """The headers of an x86 ELF file. Raises ImageError, one sentence, if it is none."""
    view = memoryview(data)
    bits = _check_ident(view)
    cls = _CLASSES[bits]
    if len(view) < cls.ehdr_bytes:
        raise ImageError(
            f"truncated ELF file: it ends at {len(view):#x}, "
            f"inside its header of {cls.ehdr_bytes:#x} bytes"
        )
    (_type, machine, _version, entry, phoff, shoff, _flags, _ehsize,
     phentsize, phnum, shentsize, shnum, shstrndx) = cls.ehdr.unpack_from(view, 16)  # fmt: skip
    if machine != _MACHINE_OF_BITS[bits]:
        raise ImageError(f"not an x86 kernel: ELF machine {machine} in a {bits}-bit file")
    if not shoff:
        shnum = 0
    _check_table(view, "program headers", phoff, phentsize, phnum, cls.phdr.size)
    _check_table(view, "section headers", shoff, shentsize, shnum, cls.shdr.size)
    segments = tuple(_program_header(view, bits, phoff + i * cls.phdr.size) for i in range(phnum))
    sections = tuple(
        SectionHeader(*cls.shdr.unpack_from(view, shoff + i * cls.shdr.size)) for i in range(shnum)
    )
    _check_contents(view, segments)
    return ElfFile(view, bits, entry, segments, sections, shstrndx)


def elf_header_without_segments(elf: ElfFile, nr_sections: int, shoff: int) -> bytes:
    """The file's ELF header, changed to announce `nr_sections` section headers and no segments."""
    cls = _CLASSES[elf.bits]
    fields = list(cls.ehdr.unpack_from(elf.data, 16))
    fields[2] = 1  # e_version: EV_CURRENT
    fields[4], fields[5] = 0, shoff
    fields[7:] = [cls.ehdr_bytes, 0, 0, cls.shdr.size, nr_sections, 0]
    return bytes(elf.data[:16]) + cls.ehdr.pack(*fields)


def symbol_struct(bits: int) -> Struct:
    """Elf32_Sym or Elf64_Sym."""
    return _CLASSES[bits].sym


def _check_ident(view: memoryview) -> int:
    """The file's class in bits."""
    start = bytes(view[:4])
    if start != _MAGIC:
        raise ImageError(
            "not an ELF file: it is empty"
            if not start
            else f"not an ELF file: it begins with {start!r}, not with {_MAGIC!r}"
        )
    if len(view) < 16:
        raise ImageError(
            f"truncated ELF file: it ends at {len(view):#x}, inside its identification"
        )
    if view[4] not in _CLASS_BITS:
        raise ImageError(f"not a 32-bit or 64-bit ELF file: its class is {view[4]}")
    if view[5] != _LITTLE_ENDIAN:
        raise ImageError(f"not a little-endian ELF file: its data encoding is {view[5]}")
    return _CLASS_BITS[view[4]]


def _check_table(
    view: memoryview, what: str, offset: int, entry_size: int, count: int, want: int
) -> None:
    if count == 0:
        return
    if entry_size != want:
        raise ImageError(f"bad ELF file: {what} of {entry_size} bytes each, want {want}")
    if (end := offset + count * want) > len(view):
        raise ImageError(
            f"truncated ELF file: its {what} reach to {end:#x}, the file ends at {len(view):#x}"
        )


def _program_header(view: memoryview, bits: int, at: int) -> ProgramHeader:
    fields = _CLASSES[bits].phdr.unpack_from(view, at)
    if bits == 32:
        kind, offset, vaddr, paddr, filesz, memsz, flags, _align = fields
    else:
        kind, flags, offset, vaddr, paddr, filesz, memsz, _align = fields
    return ProgramHeader(kind, flags, offset, vaddr, paddr, filesz, memsz)


def _check_contents(view: memoryview, segments: tuple[ProgramHeader, ...]) -> None:
    for number, segment in enumerate(segments):
        if not segment.is_loadable:
            continue
        if segment.filesz > segment.memsz:
            raise ImageError(
                f"bad ELF file: segment {number} has {segment.filesz:#x} bytes "
                f"for {segment.memsz:#x} bytes of memory"
            )
        if (end := segment.offset + segment.filesz) > len(view):
            raise ImageError(
                f"truncated ELF file: segment {number} reaches to {end:#x}, "
                f"the file ends at {len(view):#x}"
            )
