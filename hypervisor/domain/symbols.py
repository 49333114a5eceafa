"""A kernel's symbols, kept for reports: which function an address lies in.

Only the raw tables are kept until somebody asks, because a large kernel has 60,000 symbols and most
runs end without a question. Plain data: it can be pickled with the domain it describes.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

from hypervisor.domain.elf import ElfFile, symbol_struct

_STT_NOTYPE: Final = 0
_STT_FUNC: Final = 2
_SHN_UNDEF: Final = 0
_SHN_ABS: Final = 0xFFF1


@dataclass(slots=True)
class Symbols:
    """The symbol and string tables of a kernel, decoded at the first look-up."""

    bits: int
    table: bytes = b""
    strings: bytes = b""
    _addresses: list[int] | None = field(default=None, compare=False)
    _names: list[int] = field(default_factory=list, compare=False)  # offsets in `strings`

    @classmethod
    def of(cls, elf: ElfFile) -> Symbols:
        """Copies of the file's tables, so that the file can go; empty for a stripped kernel."""
        tables = elf.symbol_table()
        if tables is None:
            return cls(elf.bits)
        table, strings = (bytes(elf.bytes_of(s.offset, s.size)) for s in tables)
        return cls(elf.bits, table, strings)

    def at(self, vaddr: int) -> tuple[str, int] | None:
        """The last symbol at or below `vaddr`, and how far `vaddr` lies behind its start."""
        addresses = self._decoded()
        at = bisect_right(addresses, vaddr) - 1
        if at < 0:
            return None
        return self._name(self._names[at]), vaddr - addresses[at]

    def describe(self, vaddr: int) -> str | None:
        """`name+0x12`, as reports print it, or None where no symbol is known."""
        found = self.at(vaddr)
        return None if found is None else f"{found[0]}+{found[1]:#x}"

    def find(self, name: str) -> int | None:
        """Where `name` is, whether code or data; None for a name that is not there."""
        layout = symbol_struct(self.bits)
        whole = len(self.table) // layout.size * layout.size
        for fields in layout.iter_unpack(memoryview(self.table)[:whole]):
            section, value = (fields[5], fields[1]) if self.bits == 32 else (fields[3], fields[4])
            if section != _SHN_UNDEF and self._name(fields[0]) == name:
                return int(value)
        return None

    def pairs(self) -> list[tuple[int, str]]:
        """All code symbols by address."""
        addresses = self._decoded()
        return [(a, self._name(n)) for a, n in zip(addresses, self._names, strict=True)]

    def _name(self, offset: int) -> str:
        end = self.strings.find(b"\0", offset)
        return self.strings[offset : end if end >= 0 else None].decode("latin-1")

    def _decoded(self) -> list[int]:
        if self._addresses is None:
            found = sorted(self._code_symbols())
            self._addresses = [value for value, _ in found]
            self._names = [name for _, name in found]
        return self._addresses

    def _code_symbols(self) -> set[tuple[int, int]]:
        """(address, offset of the name) of functions, and of assembly's untyped labels."""
        layout = symbol_struct(self.bits)
        whole = len(self.table) // layout.size * layout.size
        found = set()
        for fields in layout.iter_unpack(memoryview(self.table)[:whole]):
            if self.bits == 32:
                name, value, _size, info, _other, section = fields
            else:
                name, info, _other, section, value, _size = fields
            is_code = info & 15 in {_STT_NOTYPE, _STT_FUNC}
            if name and is_code and section not in {_SHN_UNDEF, _SHN_ABS}:
                found.add((value, name))
        return found
