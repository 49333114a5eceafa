"""Values for a hypercall's registers and structures, most of them nearly right."""

from __future__ import annotations

import random
from typing import Any, Final

from hypervisor.abi.width import Width
from hypervisor.mm.entries import PAGING_MODE
from hypervisor.mm.hole_map import HOLE
from tests.fuzz.actions import Action, Block, Kind, Term, Via
from tests.fuzz.structures import meaning_of, members

LIST: Final = 0x400  # behind an argument: the list that it points to
DONE: Final = 0xF00  # in the data page, for done counts

Items = list[tuple[int, Term]]
Call = tuple[tuple[Term, ...], list[Block]]

FRAME_POOLS: Final = (
    *["spare"] * 10,
    *["l1", "l2", "table", "image", "root", "pinned", "gained"] * 2,
    *["l3", "l4", "xl2", "seg", "lent", "built", "foreign", "xen", "free", "beyond"],
)


class Values:
    """Draws values for a guest of one width."""

    def __init__(self, width: Width, dice: random.Random) -> None:
        self.width = width
        self.dice = dice
        self.mode = PAGING_MODE[width]
        self.size = self.mode.entry_bytes
        self.word = width.word_bytes
        hole = HOLE[width]
        per_table = self.mode.slots[1]
        self._slots = (0, 0, 0, 1, 2, 3, 4, 5, hole.first_slot, hole.end_slot - 1, per_table - 1)
        self._at = 0  # where the argument being built lies in its page
        self._nr_lists = 0  # that it points to
        self._page = "data"

    def _call(self, number: int, call: Call) -> Action:
        args, blocks = call
        roll = self.dice.randrange(100)
        via = Via.ENGINE if roll < 2 else Via.DISPATCHER if roll < 10 else Via.HANDLER
        return Action(Kind.CALL, int(number), args, tuple(blocks), via)

    def _number(self, end: int) -> Term:
        return Term(plus=self.dice.randrange(end))

    def _several(self, pool: str, count: int) -> tuple[Term, ...]:
        return tuple(Term(pool, self.dice.randrange(8)) for _ in range(count))

    def anything(self) -> Term:
        """A word of any kind."""
        roll = self.dice.randrange(8)
        if roll == 0:
            return Term("nasty", self.dice.randrange(64))
        if roll == 1:
            return Term("ends", self.dice.randrange(8))
        if roll == 2:
            return self._number(20)
        if roll == 3:
            return self.entry()
        if roll == 4:
            return self.frame()
        if roll == 5:
            return Term(
                self.dice.choice(("bad", "page", "tables", "xens")), self.dice.randrange(16)
            )
        return Term(self.dice.choice(("data", "nested")), 0, 0, 8 * self.dice.randrange(8))

    def frame(self) -> Term:
        """A frame number of any role, most often one that may become something."""
        return Term(self.dice.choice(FRAME_POOLS), self.dice.randrange(24))

    def entry(self) -> Term:
        """A page-table entry."""
        dice = self.dice
        frame = self.frame()
        if dice.random() < 0.12:
            return Term()
        flags = dice.choice((1, 1, 1, 3, 3, 3, 5, 7, 7, 0x67, 0x63, 0, 0x105))
        if dice.random() < 0.1:
            bits = (0x8, 0x10, 0x80, 0x100, 0x200, 1 << 52, 1 << 58, 1 << 62, 1 << 63)
            flags |= dice.choice(bits) & ((1 << 8 * self.size) - 1)
        return Term(frame.pool, frame.index, 12, flags)

    def _slot(self) -> int:
        return self.dice.choice(self._slots)

    def _pointer(self, blocks: list[Block], name: str = "any", count: int = 8) -> Term:
        """An address, mostly that of a list, which goes to `blocks`."""
        dice = self.dice
        roll = dice.random()
        if roll < 0.12:
            return Term(dice.choice(("bad", "bad", "xens", "tables")), dice.randrange(12))
        if roll < 0.25:
            return Term("page", dice.randrange(24))
        at = self._at + LIST + 0x40 * (self._nr_lists % 3)
        self._nr_lists += 1
        blocks.append(self._list_of(name, count, at))
        return Term(self._page, 0, 0, at)

    def _list_of(self, name: str, count: int, at: int) -> Block:
        size = 4 if name == "ports" else self.word
        items = tuple((size, self._element(name)) for _ in range(count))
        return Block(Term(self._page, 0, 0, at), items)

    def _element(self, name: str) -> Term:
        if name == "extent_start":
            return self.frame()
        return self._value("port") if name == "ports" else self.anything()

    def _value(self, meaning: str) -> Term:
        """A value for a field by what its name says."""
        dice = self.dice
        if dice.random() < 0.06:
            return self.anything()
        match meaning:
            case "domid":
                return Term("domid", dice.choice((0, 0, 0, 3, dice.randrange(12))))
            case "progress":
                return Term(plus=dice.choice((0, 0, 0, 0, 1, 8)))
            case "count":
                return dice.choice(
                    (*[Term(plus=n) for n in (0, 1, 1, 1, 2, 3, 8)], Term("ends", 4))
                )
            case "port" | "vcpu" | "gref":
                return Term(meaning, dice.choice((dice.randrange(8), dice.randrange(16))))
            case "frame":
                return self.frame()
            case "order":
                return Term(plus=dice.choice((0, 0, 0, 0, 0, 1, 2, 9, 20)))
            case "small":
                return self._number(9)
            case "offset":
                return Term(plus=dice.choice((0, 8, 64, 0xFC0, 0xFC4, 0xFFF)))
            case "time":
                return Term("time", 0, 0, dice.choice((0, 1, 10**6, 10**9)))
            case _:
                return self.anything()

    def _halves(self, entry: Term) -> tuple[Term, ...]:
        """A 64-bit value in the registers of either width."""
        if self.width.is_64:
            return (entry,)
        low, high = entry.plus & 0xFFFF_FFFF, entry.plus >> 32
        return Term(entry.pool, entry.index, entry.shift, low), Term(plus=high)

    def _structure(self, cls: type[Any], blocks: list[Block]) -> Block:
        """A structure, its fields as their names say; what they point to goes to `blocks`."""
        items = []
        for name, size in members(cls, self.width):
            meaning = meaning_of(name)
            term = self._pointer(blocks, name) if meaning == "pointer" else self._value(meaning)
            items.append((size, term if name else Term()))
        return Block(Term(self._page, 0, 0, self._at), tuple(items))

    def _foreign(self) -> Term:
        dice = self.dice
        whose = Term("domid", 0)
        if dice.random() < 0.2:
            whose = Term("domid", dice.randrange(12))
        if dice.random() < 0.06:  # another's tables: the upper half, its number plus 1
            return Term("domid", dice.randrange(12), 16, dice.choice((0x10000, 0x17FF0)))
        return whose

    def _batch(self, items: Items, count: int) -> Call:
        dice = self.dice
        blocks = [Block(Term(self._page, 0, 0, self._at), tuple(items))]
        vaddr = Term(self._page, 0, 0, self._at)
        if dice.random() < 0.04:
            vaddr = self._pointer([])
        nr = Term(plus=count)
        if dice.random() < 0.03:
            nr = dice.choice((Term("ends", 3), Term("ends", 2), Term(plus=1 << 31 | count)))
        done = dice.choice((Term(), Term("data", 0, 0, DONE), Term("data", 0, 0, DONE)))
        if dice.random() < 0.04:
            done = self._pointer([])
        return (vaddr, nr, done, self._foreign()), blocks
