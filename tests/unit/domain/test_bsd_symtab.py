"""The symbol table behind a BSD kernel: an ELF file of its own, as pyelftools reads it."""

from __future__ import annotations

import io

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from hypervisor.domain.bsd_symtab import bsd_symtab_start, make_bsd_symtab
from hypervisor.domain.elf import parse_elf
from tests.support.elf_writer import KernelSpec, Symbol, write_elf


@pytest.fixture(params=[32, 64])
def bits(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


def block_of(bits: int) -> bytes:
    spec = KernelSpec(bits=bits, symbols=[Symbol("start", 0x1000), Symbol("main", 0x2000)])
    block = make_bsd_symtab(parse_elf(write_elf(spec)))
    assert block is not None
    return block


def test_it_begins_with_the_size_of_the_rest(bits: int) -> None:
    block = block_of(bits)
    assert int.from_bytes(block[:4], "little") == len(block) - 4


def test_the_rest_is_an_elf_file_with_the_symbols(bits: int) -> None:
    elf = ELFFile(io.BytesIO(block_of(bits)[4:]))
    assert (elf.header.e_shoff, elf.num_sections(), elf.num_segments()) == (64, 3, 0)
    assert [elf.get_section(i).header.sh_type for i in range(3)] == [
        "SHT_NULL",
        "SHT_SYMTAB",
        "SHT_STRTAB",
    ]
    table = elf.get_section(1)
    assert isinstance(table, SymbolTableSection)
    names = [(symbol.name, symbol.entry.st_value) for symbol in table.iter_symbols()]
    assert names == [("", 0), ("start", 0x1000), ("main", 0x2000)]


def test_tables_are_aligned_in_the_whole(bits: int) -> None:
    elf = ELFFile(io.BytesIO(block_of(bits)[4:]))
    for index in (1, 2):
        assert (elf.get_section(index).header.sh_offset + 4) % (bits // 8) == 0


@pytest.mark.parametrize(
    ("bits", "end", "start"), [(32, 0x1001, 0x1004), (64, 0x1001, 0x1008), (64, 0x1008, 0x1008)]
)
def test_it_starts_at_the_next_word(bits: int, end: int, start: int) -> None:
    assert bsd_symtab_start(bits, end) == start


def test_kernel_without_symbols_gets_none() -> None:
    assert make_bsd_symtab(parse_elf(write_elf(KernelSpec()))) is None
