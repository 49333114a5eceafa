"""Symbols for reports."""

from __future__ import annotations

import pickle

import pytest

from hypervisor.domain.elf import parse_elf
from hypervisor.domain.symbols import Symbols
from tests.support.elf_writer import KernelSpec, Symbol, write_elf

SYMBOLS = (
    Symbol("main", 0x2000),
    Symbol("start", 0x1000, kind=0),
    Symbol("table", 0x1800, kind=1),  # an object
    Symbol("VERSION", 0x1900, section=0xFFF1),  # absolute
    Symbol("extern", 0x1A00, section=0),  # undefined
)


def symbols_of(bits: int, *symbols: Symbol) -> Symbols:
    return Symbols.of(parse_elf(write_elf(KernelSpec(bits=bits, symbols=symbols))))


@pytest.mark.parametrize("bits", [32, 64])
def test_only_code_counts(bits: int) -> None:
    assert symbols_of(bits, *SYMBOLS).pairs() == [(0x1000, "start"), (0x2000, "main")]


@pytest.mark.parametrize(
    ("vaddr", "words"),
    [(0xFFF, None), (0x1000, "start+0x0"), (0x1FFF, "start+0xfff"), (0x2010, "main+0x10")],
)
def test_address_is_described_by_the_symbol_before_it(vaddr: int, words: str | None) -> None:
    assert symbols_of(32, *SYMBOLS).describe(vaddr) == words


def test_stripped_kernel_has_none() -> None:
    assert symbols_of(32).at(0x1000) is None


def test_symbols_are_plain_data() -> None:
    symbols = symbols_of(64, *SYMBOLS)
    symbols.at(0)
    assert pickle.loads(pickle.dumps(symbols)) == symbols
