"""The symbol table behind the kernel that a BSD kernel asks for (XEN_ELFNOTE_BSD_SYMTAB).

At the image's end, rounded up to 4 bytes (8 for a 64-bit kernel): a u32 with the number of bytes
that follow, an ELF header in 64 bytes, three section headers (none, symbol table, string table),
the symbol table and the string table, each aligned like the whole. Offsets count from the ELF
header (elf_load_bsdsyms in Xen's libelf-loader.c). Room for the three headers is that of 64-bit
ones, for a 32-bit kernel too, as there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hypervisor.domain.elf import ElfFile, SectionHeader, elf_header_without_segments

_SIZE_BYTES: Final = 4
_EHDR_BYTES: Final = 64
_SHDR_BYTES: Final = 64
_NR_SECTIONS: Final = 3
_STRTAB_INDEX: Final = 2
_HEADERS_BYTES: Final = _SIZE_BYTES + _EHDR_BYTES + _NR_SECTIONS * _SHDR_BYTES


def bsd_symtab_start(bits: int, image_end: int) -> int:
    """Where the table goes behind an image that ends at `image_end`."""
    return _round_up(image_end, bits)


def make_bsd_symtab(elf: ElfFile) -> bytes | None:
    """The whole block; None for a kernel without a symbol table, which Xen starts without one."""
    tables = elf.symbol_table()
    if tables is None:
        return None
    symtab, strtab = tables
    symtab_at = _round_up(_HEADERS_BYTES, elf.bits)
    strtab_at = _round_up(symtab_at + symtab.size, elf.bits)
    end = strtab_at + strtab.size
    block = bytearray(end)
    block[:_SIZE_BYTES] = (end - _SIZE_BYTES).to_bytes(4, "little")
    _put(block, _SIZE_BYTES, elf_header_without_segments(elf, _NR_SECTIONS, _EHDR_BYTES))
    headers = _section_headers(elf.bits, symtab, symtab_at, strtab, strtab_at)
    _put(block, _SIZE_BYTES + _EHDR_BYTES, headers)
    _put(block, symtab_at, elf.bytes_of(symtab.offset, symtab.size))
    _put(block, strtab_at, elf.bytes_of(strtab.offset, strtab.size))
    return bytes(block)


def _section_headers(
    bits: int, symtab: SectionHeader, symtab_at: int, strtab: SectionHeader, strtab_at: int
) -> bytes:
    """The null header, then both tables' own with offsets and link as they now are."""
    symbols = replace(symtab, offset=symtab_at - _SIZE_BYTES, link=_STRTAB_INDEX).pack(bits)
    strings = replace(strtab, offset=strtab_at - _SIZE_BYTES).pack(bits)
    return bytes(len(symbols)) + symbols + strings


def _put(block: bytearray, at: int, data: bytes | memoryview) -> None:
    block[at : at + len(data)] = data


def _round_up(value: int, bits: int) -> int:
    align = bits // 8
    return (value + align - 1) & -align
