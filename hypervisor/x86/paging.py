"""The three paging modes and their entries (SDM 3A chapter 4).

An entry is an int. Bits 0..11 and the frame mean the same in all three modes; a mode differs in the
number of levels, the size of an entry and how a linear address is cut into indexes. PAE's top level
has four entries in a 32-byte block and is treated as a level of its own (L3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PAGE_MASK: Final = PAGE_SIZE - 1

PTE_P: Final = 1 << 0
PTE_RW: Final = 1 << 1
PTE_US: Final = 1 << 2
PTE_PWT: Final = 1 << 3
PTE_PCD: Final = 1 << 4
PTE_A: Final = 1 << 5
PTE_D: Final = 1 << 6
PTE_PSE: Final = 1 << 7  # L2 and up: a superpage
PTE_PAT: Final = 1 << 7  # L1
PTE_G: Final = 1 << 8
PTE_AVAIL: Final = 7 << 9
PTE_NX: Final = 1 << 63

#: The frame number's bits in a 64-bit entry; a 32-bit entry has its upper half clear.
PTE_FRAME: Final = 0x000F_FFFF_FFFF_F000


def pte_mfn(pte: int) -> int:
    """The machine frame that a present entry names."""
    return (pte & PTE_FRAME) >> PAGE_SHIFT


def make_pte(mfn: int, flags: int) -> int:
    """An entry that names `mfn` with `flags` (low twelve bits, and NX)."""
    return mfn << PAGE_SHIFT | flags


def pte_flags(pte: int) -> int:
    """Everything but the frame."""
    return pte & ~PTE_FRAME


@dataclass(frozen=True, slots=True)
class PagingMode:
    """How a linear address is walked.

    `shifts[level]` is the lowest bit of the index into a table of `level` (1 is the leaf);
    `slots[level]` how many entries of that table count.
    """

    name: str
    levels: int
    entry_bytes: int
    shifts: tuple[int, ...]
    slots: tuple[int, ...]

    @property
    def entry_shift(self) -> int:
        """log2 of the size of an entry."""
        return 2 if self.entry_bytes == 4 else 3

    def index(self, vaddr: int, level: int) -> int:
        """The slot of `vaddr` in its table of `level`."""
        return (vaddr >> self.shifts[level]) & (self.slots[level] - 1)

    def reach(self, level: int) -> int:
        """How many bytes one entry of a table of `level` maps."""
        return 1 << self.shifts[level]


LEGACY: Final = PagingMode("two-level", 2, 4, (0, 12, 22), (0, 1024, 1024))
PAE: Final = PagingMode("PAE", 3, 8, (0, 12, 21, 30), (0, 512, 512, 4))
LONG: Final = PagingMode("long", 4, 8, (0, 12, 21, 30, 39), (0, 512, 512, 512, 512))
