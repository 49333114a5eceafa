"""A malicious guest's grammar: hypercalls of the right shape, with one thing wrong, or all of it.

What can be called is read from the tables that the dispatcher works by: an operation that gets a
row in `SUBOPS` is called from then on, its argument filled by its declared layout and by what its
fields' names say that they mean. Hypercalls without such a table have a line in `_by_number`; those
without either get registers of any kind. How often what is drawn was tuned by what runs reached.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from hypervisor.abi.layout import layout
from hypervisor.abi.memory import XenmemOp, XenMemoryReservation
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr, MulticallEntry
from hypervisor.hypercalls.table import HYPERCALLS, SUBOPS, SubOp
from tests.fuzz.actions import Action, Block, Kind, Term
from tests.fuzz.paging import Paging
from tests.fuzz.values import LIST, Call, Items

_HELPED: Final = 0.4  # of the operations drawn are such that have not succeeded yet
_LIKELY: Final = (
    *["tree", "mmu_update", "mmuext", "va_mapping"] * 8,
    *["subop"] * 14,
    *["descriptor", "store", "poke", "multicall", "number"] * 3,
    *["balloon"] * 4,
    *["linear"] * 2,
    *["bulk", "anything", "iret"],
)


class Grammar(Paging):
    """Draws actions of a guest of one width."""

    def __init__(self, width: Width, dice: random.Random) -> None:
        super().__init__(width, dice)
        self._page = "data"
        self._by_number: dict[int, Callable[[], Call]] = {
            HypercallNr.MMU_UPDATE: self._mmu_update,
            HypercallNr.MMUEXT_OP: self._mmuext_op,
            HypercallNr.UPDATE_VA_MAPPING: self._update_va_mapping,
            HypercallNr.UPDATE_VA_MAPPING_OTHERDOMAIN: self._otherdomain,
            HypercallNr.UPDATE_DESCRIPTOR: self._update_descriptor,
            HypercallNr.SET_GDT: self._set_gdt,
            HypercallNr.SET_TRAP_TABLE: self._set_trap_table,
            HypercallNr.SET_CALLBACKS: lambda: (self._several("stub", 4), []),
            HypercallNr.VM_ASSIST: lambda: ((self._number(3), self._number(7)), []),
            HypercallNr.SET_DEBUGREG: lambda: ((self._number(9), self.anything()), []),
            HypercallNr.GET_DEBUGREG: lambda: ((self._number(9),), []),
            HypercallNr.SET_SEGMENT_BASE: lambda: ((self._number(5), self.anything()), []),
            HypercallNr.CONSOLE_IO: lambda: (
                (self._number(3), self._number(200), self._pointer([])),
                [],
            ),
            HypercallNr.IRET: self._iret,
            HypercallNr.SET_TIMER_OP: lambda: (self._halves(Term("time", 0, 0, 5000)), []),
        }
        self.starved: list[tuple[int, int]] = []  # operations that hardly ever succeeded so far
        self._numbers = sorted(HYPERCALLS)
        self._operations = [
            (int(number), int(operation))
            for number, table in sorted(SUBOPS.items())
            for operation in sorted(table)
            if number is not HypercallNr.MMUEXT_OP
        ]

    def help(self, starved: set[tuple[int, int]]) -> None:
        """Draw these operations more often than others."""
        self.starved = sorted(starved & set(self._operations))

    # --- the start symbol ------------------------------------------------------------------------
    def actions(self) -> list[Action]:
        """One or a few actions that belong together."""
        what = self.dice.choice(_LIKELY)
        match what:
            case "tree":
                return self._tree()
            case "poke":
                return [self._poke()]
            case "store":
                return [self._store()]
            case "subop":
                starved = self.starved if self.dice.random() < _HELPED else None
                return [self._operation(*self.dice.choice(starved or self._operations))]
            case "bulk":
                return [
                    self._call(
                        HypercallNr.MMU_UPDATE, self._mmu_update(self.dice.choice((70, 130)))
                    )
                ]
            case "multicall":
                return [self._multicall()]
            case "linear":
                return self._linear()
            case "balloon":
                return [self._balloon()]
            case "iret":
                return [self._call(HypercallNr.IRET, self._iret())]
            case "anything":
                number = self.dice.choice((*self._numbers, self.dice.randrange(64)))
                args = tuple(self.anything() for _ in range(5))
                return [self._call(number, (args, [self._list_of("any", 24, at=0)]))]
        number = {
            "mmu_update": HypercallNr.MMU_UPDATE,
            "mmuext": HypercallNr.MMUEXT_OP,
            "va_mapping": HypercallNr.UPDATE_VA_MAPPING,
            "descriptor": self.dice.choice((HypercallNr.UPDATE_DESCRIPTOR, HypercallNr.SET_GDT)),
        }.get(what, self.dice.choice(self._numbers))
        return [self._hypercall(number)]

    def _hypercall(self, number: int) -> Action:
        """A hypercall of its right shape, mostly."""
        if number == HypercallNr.MULTICALL:
            return self._multicall()
        if (build := self._by_number.get(number)) is not None:
            return self._call(number, build())
        table = SUBOPS.get(HypercallNr(number))
        if table:
            return self._operation(number, int(self.dice.choice(sorted(table))))
        args = tuple(self.anything() for _ in range(HYPERCALLS[number].nr_args))
        return self._call(number, (args, [self._list_of("any", 16, at=0)]))

    # --- operations by their tables --------------------------------------------------------------
    def _operation(self, number: int, operation: int) -> Action:
        row = SUBOPS[HypercallNr(number)][operation]
        blocks: list[Block] = []
        if isinstance(row, SubOp) and row.argument is not None:
            self._nr_lists = 0
            blocks.append(self._structure(row.argument, blocks))
        else:  # nothing, or what its handler reads by itself, which begins with a domain
            rest = tuple((8, self.anything()) for _ in range(3))
            at = Term(self._page, 0, 0, self._at)
            blocks.append(Block(at, ((2, self._value("domid")), *rest)))
        self.dice.shuffle(blocks)
        pointer = Term(self._page, 0, 0, self._at)
        if self.dice.random() < 0.05:
            pointer = self._pointer([])
        args: tuple[Term, ...] = Term(plus=operation), pointer
        if number == HypercallNr.VCPU_OP:
            args = args[0], self._value("vcpu"), pointer
        if number == HypercallNr.GRANT_TABLE_OP:
            args = *args, Term(plus=self.dice.choice((1, 1, 1, 1, 0, 2)))
        return self._call(number, (args, blocks))

    def _balloon(self) -> Action:
        """Memory for more, for less, or for other memory."""
        dice = self.dice
        operation = dice.choice((0, 1, 1, 6, 11))  # XENMEM_*
        nr, order = dice.choice((1, 2, 8)), dice.choice((0, 0, 0, 1, 2, 3))
        pool = dice.choice(("spare", "spare", "gained", "image"))
        first = dice.randrange(24)
        extents = tuple((self.word, Term(pool, first + idx)) for idx in range(nr))
        whose = Term("domid", dice.choice((0, 0, 0, 3)))
        fields = self._reservation(LIST, nr, order, whose)
        if operation == XenmemOp.EXCHANGE:
            fields += [*self._reservation(LIST + 0x100, nr, order, whose), (8, Term())]
        blocks = [
            Block(Term("data", 0, 0, LIST), extents),
            Block(Term("data", 0, 0, LIST + 0x100), extents),
            Block(Term("data"), tuple(fields)),
        ]
        return self._call(HypercallNr.MEMORY_OP, ((Term(plus=operation), Term("data")), blocks))

    def _reservation(self, at: int, nr: int, order: int, whose: Term) -> Items:
        """struct xen_memory_reservation."""
        size = layout(XenMemoryReservation, self.width).size
        pad = Term()
        return [
            (self.word, Term("data", 0, 0, at)),
            (self.word, Term(plus=nr)),
            (4, Term(plus=order)),
            (4, pad),
            (2, whose),
            (size - 2 * self.word - 10, pad),
        ]

    # --- traps -----------------------------------------------------------------------------------
    def _set_trap_table(self) -> Call:
        dice = self.dice
        items: Items = []
        for _ in range(dice.choice((0, 1, 3))):
            address = Term("stub") if dice.random() < 0.7 else self.anything()
            items += [(1, self._number(32)), (1, self._number(8)), (2, self._number(0x70))]
            items += [(self.word, address)] if self.word == 4 else [(4, Term()), (8, address)]
        items.append((16, Term()))
        at = Term(self._page, 0, 0, self._at)
        return (at if dice.random() < 0.9 else self.anything(),), [Block(at, tuple(items))]

    def _iret(self) -> Call:
        """A frame on the kernel's stack that goes back to it, to user mode, or nowhere."""
        dice = self.dice
        code = dice.choice((0xE019, 0xE02B, 0xE033, 0xE023, 0xE008, 0, 7, dice.randrange(1 << 16)))
        stack = dice.choice((0xE021, 0xE02B, 0xE02B, 0, 7, dice.randrange(1 << 16)))
        flags = Term(plus=dice.choice((0x202, 0x2, 0x3202, 0x20202, 0x4202)))
        place = dice.choice((Term("stub"), Term("stub"), self.anything()))
        back = (place, Term(plus=code), flags, Term("stub"), Term(plus=stack))
        head = (
            (Term(), Term(), Term(), Term(plus=dice.choice((0, 0x100))))
            if self.word == 8
            else (Term(),)
        )
        frame = tuple((self.word, term) for term in (*head, *back))
        return (), [Block(Term("stack"), frame)]

    # --- lists of calls --------------------------------------------------------------------------
    def _multicall(self) -> Action:
        """Some calls at once, their arguments one behind the other on a page of their own."""
        dice = self.dice
        shape = layout(MulticallEntry, self.width)
        self._page = "nested"
        blocks: list[Block] = []
        count = dice.choice((1, 2, 3, 3))
        for idx in range(count):
            self._at = idx * 0x500
            number = dice.choice(self._numbers)
            inner = self._inner(number)
            blocks += inner.blocks
            words = [Term(plus=inner.number), Term(), *inner.args][:8]
            words += [Term()] * (8 - len(words))
            at = Term("data", 0, 0, idx * shape.size)
            blocks.append(Block(at, tuple((self.word, term) for term in words)))
        self._page, self._at = "data", 0
        if dice.random() < 0.1:  # a list that changes itself
            blocks.append(
                Block(Term("nested"), ((8, Term("image", 2, 12, 16)), (8, self.anything())))
            )
        nr = Term(plus=count) if dice.random() < 0.95 else Term("ends", 4)
        return self._call(HypercallNr.MULTICALL, ((Term("data"), nr), blocks))

    def _inner(self, number: int) -> Action:
        if number == HypercallNr.MULTICALL:
            return Action(Kind.CALL, number, (Term("data"), Term(plus=1)))
        return self._hypercall(number)
