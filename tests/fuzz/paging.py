"""The part of the grammar that is about page tables and descriptor tables."""

from __future__ import annotations

from typing import Final

from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr, MmuextCmd
from tests.fuzz.actions import Action, Block, Kind, Term, Via
from tests.fuzz.pools import DESCRIPTORS
from tests.fuzz.values import DONE, FRAME_POOLS, LIST, Call, Items, Values

_NOTHING: Final = Term()
NR_STORES: Final = 12  # see target


class Paging(Values):
    """Draws what changes tables, and memory that may become one."""

    # --- entries ---------------------------------------------------------------------------------
    def _request(self) -> Items:
        """struct mmu_update."""
        dice = self.dice
        pool = dice.choice(
            ("l1", "l1", "l2", "table", "root", "xl2", "l3", "l4", *FRAME_POOLS[:12])
        )
        command = dice.choice((0, 0, 0, 0, 2, 1, 3, 4))
        ptr = Term(pool, dice.randrange(24), 12, self._slot() * self.size + command)
        if dice.random() < 0.08:
            return [(8, ptr), (8, Term(pool, ptr.index, 12, dice.choice((1, 5, 7))))]  # linear
        return [(8, ptr), (8, self.entry())]

    def _mmu_update(self, count: int = 0) -> Call:
        count = count or self.dice.choice((1, 1, 1, 2, 3, 5))
        if count > 60:  # leaves, so that it can be done at once
            table = self.dice.randrange(24)
            items: Items = []
            for idx in range(count):
                ptr = Term("l1", table, 12, (32 + idx % 90) * self.size)
                items += [
                    (8, ptr),
                    (8, self.entry() if idx % 30 == 29 else Term("spare", idx, 12, 3)),
                ]
            return self._batch(items, count)
        items = [item for _ in range(count) for item in self._request()]
        if count > 1 and self.dice.random() < 0.2:  # the batch changes itself
            items[0] = (8, Term("image", 2, 12, 16 + 8 * self.dice.randrange(2)))
        return self._batch(items, count)

    def _mmuext_op(self) -> Call:
        count = self.dice.choice((1, 1, 1, 2, 3))
        items: Items = []
        for _ in range(count):
            items += self._one_mmuext()
        return self._batch(items, count)

    def _one_mmuext(self) -> Items:
        dice = self.dice
        command = int(dice.choice((*range(6), *range(22), 4, 4, 13, 15)))
        arg1, arg2 = self.frame(), self.frame()
        pins = ("l1", "l2", "l3", "l4")
        if command < 4 and dice.random() < 0.3:
            arg1 = Term(dice.choice((pins[command], "spare")), dice.randrange(24))
        elif command == MmuextCmd.UNPIN_TABLE:
            arg1 = Term("pinned", dice.randrange(24)) if dice.random() < 0.8 else arg1
        elif command in (MmuextCmd.NEW_BASEPTR, MmuextCmd.NEW_USER_BASEPTR):
            pools = ("l2", "l3", "l4")[self.mode.levels - 2], "root", "root", "num"
            arg1 = Term(dice.choice(pools), dice.randrange(8)) if dice.random() < 0.8 else arg1
        elif command == MmuextCmd.SET_LDT:
            arg1 = Term(dice.choice(("page", "data", "bad", "tables")), dice.randrange(24))
            arg2 = Term(plus=dice.choice((0, 1, 512, 8192, 8193)))
        elif command not in (MmuextCmd.CLEAR_PAGE, MmuextCmd.COPY_PAGE):
            arg1 = self._pointer([]) if dice.random() < 0.7 else arg1
            arg2 = Term("data", 0, 0, LIST) if dice.random() < 0.7 else arg2
        return self._operation_on(command, arg1, arg2)

    def _update_va_mapping(self) -> Call:
        dice = self.dice
        pool = dice.choice(("page", "page", "page", "tables", "data", "bad", "xens"))
        vaddr = Term(pool, dice.randrange(24))
        flags = Term(plus=dice.choice((0, 0, 1, 2, 3, 5, 6)))
        if dice.random() < 0.1:
            flags = Term("data", 0, 0, dice.choice((1, 2)))
        return (vaddr, *self._halves(self.entry()), flags), []

    def _otherdomain(self) -> Call:
        args, blocks = self._update_va_mapping()
        return (*args, self._foreign()), blocks

    # --- trees -----------------------------------------------------------------------------------
    def _tree(self) -> list[Action]:
        """A tree of tables, built properly in memory and pinned, or with one thing twisted."""
        dice = self.dice
        first = dice.randrange(24)
        levels = dice.randint(1, self.mode.levels)
        chain = [Term("spare", first + step) for step in range(levels)]
        blocks = []
        for depth, table in enumerate(chain):
            level = levels - depth
            blocks.append(self._clear(table))
            blocks += self._entries(table, level, chain, depth, first + levels)
        if dice.random() < 0.5:
            twisted = dice.choice(chain)
            at = Term(twisted.pool, twisted.index, 12, self._slot() * self.size)
            value = self.entry()
            if dice.random() < 0.4:  # linear
                value = Term(
                    *dice.choice([("l2", dice.randrange(8)), (chain[0].pool, chain[0].index)]),
                    12,
                    1,
                )
            blocks.append(Block(at, ((self.size, value),)))
        pokes = Action(Kind.POKE, 0, (), tuple(blocks))
        return [pokes, self._hold(chain, levels)]

    def _hold(self, chain: list[Term], levels: int) -> Action:
        command = levels - 1
        if levels == self.mode.levels and self.dice.random() < 0.2:
            command = self.dice.choice((MmuextCmd.NEW_BASEPTR, MmuextCmd.NEW_USER_BASEPTR))
        items = self._operation_on(int(command), chain[0])
        at = Term("data")
        args = at, Term(plus=1), Term("data", 0, 0, DONE), Term("domid", 0)
        return self._call(HypercallNr.MMUEXT_OP, (args, [Block(at, tuple(items))]))

    def _clear(self, table: Term) -> Block:
        """Zeroes where entries of a tree may stand."""
        return Block(Term(table.pool, table.index, 12, 0), tuple((8, Term()) for _ in range(4)))

    def _entries(
        self, table: Term, level: int, chain: list[Term], depth: int, leaves: int
    ) -> list[Block]:
        """The entries of one table of a tree."""
        dice = self.dice
        at = Term(table.pool, table.index, 12, 0)
        if level == 1:
            flags = dice.choice((1, 3, 5, 7))
            items = tuple((self.size, Term("spare", leaves + idx, 12, flags)) for idx in range(2))
            return [Block(at, items)]
        lower = chain[depth + 1]
        is_pae_root = self.width is Width.X86_32P and level == 3
        flags = 1 if is_pae_root else dice.choice((1, 7, 7))
        if is_pae_root:
            slot = dice.choice((3, 3, 3, 0))
            at = Term(table.pool, table.index, 12, slot * 8)
            entry = dice.choice((Term(lower.pool, lower.index, 12, 1), Term("xl2", 0, 12, 1)))
            return [Block(at, ((8, entry),))]
        blocks = [Block(at, ((self.size, Term(lower.pool, lower.index, 12, flags)),))]
        if level == self.mode.levels and dice.random() < 0.5:
            blocks += self._kernel_entry(table)
        return blocks

    def _kernel_entry(self, table: Term) -> list[Block]:
        """The kernel's own tables, so that it could go on there."""
        slot = {Width.X86_32: 0xC000_0000 >> 22, Width.X86_64: 511}.get(self.width, 1)
        at = Term(table.pool, table.index, 12, slot * self.size)
        return [Block(at, ((self.size, Term("built", 1, 12, 7)),))]

    def _linear(self) -> list[Action]:
        """Tables of one level that show each other, as they may and as they may not."""
        dice = self.dice
        level = dice.randint(2, 2 if self.width is Width.X86_32P else self.mode.levels)
        first = dice.randrange(24)
        tables = [Term("spare", first + step) for step in range(3)]
        pins: Items = []
        for table in tables:
            pins += self._operation_on(level - 1, table)
        items: Items = []
        for _ in range(dice.randint(2, 4)):
            table, named = dice.choice(tables), dice.choice(tables)
            where = Term(table.pool, table.index, 12, dice.choice((6, 7)) * self.size)
            items += [
                (8, where),
                (8, Term(named.pool, named.index, 12, dice.choice((1, 1, 1, 5, 7)))),
            ]
        return [
            Action(Kind.POKE, 0, (), tuple(self._clear(table) for table in tables)),
            self._call(HypercallNr.MMUEXT_OP, self._batch(pins, 3)),
            self._call(HypercallNr.MMU_UPDATE, self._batch(items, len(items) // 2)),
        ]

    def _operation_on(self, command: int, arg1: Term, arg2: Term = _NOTHING) -> Items:
        """struct mmuext_op."""
        head: Items = [(4, Term(plus=command))]
        if self.word == 8:
            head.append((4, Term()))
        return [*head, (self.word, arg1), (self.word, arg2)]

    # --- plain stores ----------------------------------------------------------------------------
    def _poke(self) -> Action:
        """Entries or descriptors in memory that may become a table."""
        dice = self.dice
        mfn = Term(dice.choice(("spare", "spare", "table", "image", "gained")), dice.randrange(24))
        blocks = []
        for _ in range(dice.randint(1, 4)):
            if dice.random() < 0.3:
                slot, size = 8 * dice.randrange(8), 8
                term = Term("desc", dice.randrange(len(DESCRIPTORS)))
            else:
                slot, size, term = self._slot() * self.size, self.size, self.entry()
            blocks.append(Block(Term(mfn.pool, mfn.index, 12, slot), ((size, term),)))
        return Action(Kind.POKE, 0, (), tuple(blocks))

    def _store(self) -> Action:
        """A store to a page table through its read-only mapping."""
        dice = self.dice
        slot = self._slot() * self.size + dice.choice((0, 0, 0, 0, 4, 2, 1))
        vaddr = Term("tables", dice.randrange(8), 0, slot & 0xFFF)
        if dice.random() < 0.15:
            vaddr = Term(dice.choice(("page", "xens", "bad")), dice.randrange(24))
        registers = tuple(dice.choice((self.entry(), self.anything())) for _ in range(4))
        via = Via.ENGINE if dice.random() < 0.1 else Via.HANDLER
        return Action(Kind.STORE, dice.randrange(NR_STORES), (vaddr, *registers), (), via)

    # --- descriptors -----------------------------------------------------------------------------
    def _update_descriptor(self) -> Call:
        dice = self.dice
        frame = Term(dice.choice(("seg", "spare", "image", "table")), dice.randrange(24))
        if dice.random() < 0.2:
            frame = self.frame()
        where = Term(frame.pool, frame.index, 12, dice.choice((0, 8, 16, 0xFF8, 4)))
        what = DESCRIPTORS[dice.randrange(len(DESCRIPTORS))]
        if dice.random() < 0.1:
            what = dice.getrandbits(64)
        return (*self._halves(where), *self._halves(Term(plus=what))), []

    def _set_gdt(self) -> Call:
        dice = self.dice
        blocks = [self._list_of("extent_start", dice.choice((1, 1, 2, 14)), at=0)]
        entries = Term(plus=dice.choice((0, 1, 512, 513, 1024, 7168, 7169)))
        pointer = Term(self._page) if dice.random() < 0.9 else self._pointer([])
        return (pointer, entries), blocks
