"""Page tables under random changes, against a model that knows no counts.

The model is one sentence: a set of held frames is allowed when every frame that they lead to, by
what the tables in memory say, has one owner and one type. Whether an operation is refused follows
from that alone, and after each the audit recounts everything.

Linear entries are the exception, as they depend on what was there first. One that names its own
table holds nothing and needs only to be read-only. One that names another table of its level needs
that to be a table already: where an operation meets such an entry for the first time the model does
not foretell the outcome, but what is held afterwards has to be allowed all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.audit import AuditSubject, audit
from hypervisor.mm.entries import DISALLOWED, LEVEL_OF, TYPE_OF_LEVEL
from hypervisor.mm.frames import ALLOCATED, FrameTable, FrameType
from hypervisor.mm.hole_map import HOLE
from hypervisor.mm.pagetables import UNLIMITED, OutOfBudget, PageTables, XenSlots
from hypervisor.x86.paging import PTE_G, PTE_P, PTE_PCD, PTE_RW, PTE_US, pte_mfn
from tests.support.effort import examples, run_machine
from tests.support.frame_properties import state
from tests.support.reach import check_frames

OWNER, STRANGER = 1, 2
EXAMPLES = 40
NR_FRAMES = 24
NR_OWN = 8

Held = tuple[int, FrameType]
TYPES_OF = {
    level: {kind for kind in map(FrameType, LEVEL_OF) if LEVEL_OF[kind] == level}
    for level in range(1, 5)
}


class Refused(Exception):
    """The model says no."""


class Unforeseen(Exception):
    """The model cannot tell: see above."""


class Model:
    """What may be, given what is in memory."""

    def __init__(self, tables: PageTables) -> None:
        self.tables = tables
        self.frames = tables.frames
        self.width = tables.width
        self.size = tables.mode.entry_bytes
        self._types: dict[int, FrameType] = {}
        self._xen_l2s: Counter[int] = Counter()
        self._is_changing = False

    def foresees(self, held: list[Held], extra: dict[int, int] | None = None) -> bool | None:
        """The same for what is about to be tried; None when the model cannot tell."""
        try:
            return self.allows(held, extra, is_changing=True)
        except Unforeseen:
            return None

    def allows(
        self,
        held: list[Held],
        extra: dict[int, int] | None = None,
        *,
        is_changing: bool = False,
    ) -> bool:
        """Whether every frame that `held` leads to has one type.

        `extra` is an entry that a table is to have besides those it has: the new one, checked
        while the old one still stands.
        """
        self._types, self._xen_l2s = {}, Counter()
        self._is_changing = is_changing
        try:
            for mfn, kind in held:
                self._visit(mfn, kind, extra or {})
        except Refused:
            return False
        return all(count == 1 for count in self._xen_l2s.values())

    def _visit(self, mfn: int, kind: FrameType, extra: dict[int, int]) -> None:
        if mfn >= NR_FRAMES or self.frames.owner[mfn] != OWNER:
            raise Refused
        if kind is FrameType.NONE:  # named by a leaf that is read-only
            return
        if mfn in self._types:
            if self._types[mfn] is not kind:
                raise Refused
            return
        self._types[mfn] = kind
        if kind in LEVEL_OF:
            self._visit_entries(mfn, kind, extra)

    def _visit_entries(self, mfn: int, kind: FrameType, extra: dict[int, int]) -> None:
        level = LEVEL_OF[kind]
        is_pae_l3 = self.width is Width.X86_32P and level == 3
        entries = list(self._entries(mfn, kind))
        if is_pae_l3 and all(slot != 3 for slot, _ in entries):
            raise Refused
        if mfn in extra:
            entries.append((0, extra[mfn]))
        for slot, entry in entries:
            if entry & DISALLOWED[self.width][level]:
                raise Refused
            target = pte_mfn(entry)
            if level == 1:
                want = FrameType.WRITABLE if entry & PTE_RW else FrameType.NONE
            elif is_pae_l3 and slot == 3:
                want = FrameType.XEN_L2
                self._xen_l2s[target] += 1
            else:
                want = TYPE_OF_LEVEL[level - 1]
                if not is_pae_l3 and self._is_linear(mfn, level, target, entry):
                    continue
            self._visit(target, want, extra)

    def _is_linear(self, table: int, level: int, target: int, entry: int) -> bool:
        """Whether an entry holds nothing but what its being linear says."""
        if entry & PTE_RW:
            return False
        if target == table:
            return True
        types = self.frames.type
        is_table = target < NR_FRAMES and self.frames.type_count[target] > 0
        if not is_table or LEVEL_OF.get(types[target]) != level:
            if self._is_changing and self._types.get(target) in TYPES_OF[level]:
                raise Unforeseen
            return False
        if self._is_changing:
            raise Unforeseen
        self._visit(target, FrameType(types[target]), {})
        return True

    def _entries(self, mfn: int, kind: FrameType) -> Iterator[tuple[int, int]]:
        xen = self.tables.xen_slots
        for slot in range(self.tables.mode.slots[LEVEL_OF[kind]]):
            if kind == xen.table and xen.first <= slot < xen.end:
                continue
            entry = self.tables.read_entry((mfn << 12) + slot * self.size)
            if entry & PTE_P:
                yield slot, entry


class FramesMachine(RuleBasedStateMachine):
    """A domain that changes its tables, and holds them, as it likes."""

    width: ClassVar[Width]

    @initialize()
    def start(self) -> None:
        memory = MachineMemory(NR_FRAMES * 4096)
        self.frames = FrameTable(memory)
        (xen,) = self.frames.allocate_xen(1)
        hole = HOLE[self.width]
        size = 4 if self.width is Width.X86_32 else 8
        slots = (xen << 12 | PTE_P | PTE_RW).to_bytes(size, "little")
        entries = slots + bytes(size * (hole.end_slot - hole.first_slot - 1))
        xen_slots = XenSlots(hole.table, hole.first_slot, hole.end_slot, entries)
        self.tables = PageTables(self.frames, self.width, OWNER, xen_slots)
        self.own = self.frames.allocate(OWNER, NR_OWN)
        (self.lent,) = self.frames.allocate(OWNER, 1)
        self.frames.lend(self.lent)
        self.others = [*self.frames.allocate(STRANGER, 1), xen, 0, NR_FRAMES, (1 << 20) - 1]
        self.pins: dict[int, FrameType] = {}
        self.held: list[Held] = []
        self.model = Model(self.tables)
        self.size = size

    # --- what there is to choose from -------------------------------------------------------
    def _mfn(self, choice: int) -> int:
        """Mostly one of its own."""
        if choice < 14:
            return self._own(choice)
        return self.lent if choice == 14 else self.others[len(self.pins) % len(self.others)]

    def _own(self, choice: int) -> int:
        return self.own[choice % len(self.own)]

    def _all_held(self) -> list[Held]:
        return [*self.pins.items(), *self.held, (self.lent, FrameType.WRITABLE)]

    def _slot(self, choice: int) -> int:
        hole = HOLE[self.width]
        return (0, 1, 3, hole.first_slot)[choice % 4]

    def _attempt(self, operation: Callable[..., None], *args: Any) -> bool:
        """Whether it was done; if it was refused, nothing has changed."""
        before = state(self.frames, self.width)
        try:
            operation(*args)
        except XenError:
            assert state(self.frames, self.width) == before, "a refusal left something behind"
            return False
        return True

    # --- rules -----------------------------------------------------------------------------
    small = st.integers(0, 15)
    flags = st.sampled_from((0, PTE_P, PTE_P, PTE_P | PTE_RW, PTE_P | PTE_RW | PTE_US))

    @rule(table=small, slot=small, named=small, flags=flags)
    def write(self, table: int, slot: int, named: int, flags: int) -> None:
        """An entry, by hypercall if the frame is a table, else through a mapping."""
        self._write_entry(self._own(table), self._slot(slot), self._mfn(named) << 12 | flags)

    def _write_entry(self, mfn: int, slot: int, entry: int) -> None:
        if self.frames.owner[mfn] != OWNER:
            return
        maddr = (mfn << 12) + slot * self.size
        kind = self.tables.entry_type(mfn)
        if kind is FrameType.NONE:
            if self.frames.type_count[mfn] and self.frames.type[mfn] == FrameType.SEGDESC:
                return
            self.frames.memory.write(maddr, entry.to_bytes(self.size, "little"))
            return
        expected = self._may_change(mfn, kind, slot, entry)
        assert self._attempt(self.tables.update_entry, maddr, entry) == expected or expected is None

    def _may_change(self, mfn: int, kind: FrameType, slot: int, entry: int) -> bool | None:
        xen = self.tables.xen_slots
        if kind == xen.table and xen.first <= slot < xen.end:
            return False
        if kind is FrameType.L3 and self.width is Width.X86_32P and slot >= 3:
            return False
        return not entry & PTE_P or self.model.foresees(self._all_held(), {mfn: entry})

    @rule(frame=small, level=st.integers(1, 4), in_pieces=st.booleans())
    def pin(self, frame: int, level: int, in_pieces: bool) -> None:
        if level <= self.tables.mode.levels:
            self._pin(self._mfn(frame), TYPE_OF_LEVEL[level], in_pieces)

    def _pin(self, mfn: int, kind: FrameType, in_pieces: bool) -> None:
        expected = False if mfn in self.pins else self._may_hold(mfn, kind)
        operation = self._pin_in_pieces if in_pieces else self.tables.pin
        is_done = self._attempt(operation, mfn, kind)
        assert is_done == expected or expected is None
        if is_done:
            self.pins[mfn] = kind

    def _may_hold(self, mfn: int, kind: FrameType) -> bool | None:
        return self.model.foresees([*self._all_held(), (mfn, kind)])

    def _pin_in_pieces(self, mfn: int, kind: FrameType) -> None:
        try:
            for _ in range(50):  # each piece may look at one leaf table, and at those above it
                table_slots = 4096 // self.size
                self.tables.budget = (self.tables.mode.levels - 1) * table_slots + 1
                try:
                    self.tables.retryable(0, self.tables.pin, mfn, kind)
                    return
                except OutOfBudget:
                    self.counts_are_right()
            raise AssertionError("no progress")
        finally:
            self.tables.budget = UNLIMITED
            assert self.tables.reap()

    @rule(frame=small, in_pieces=st.booleans())
    def unpin(self, frame: int, in_pieces: bool) -> None:
        mfn = self._mfn(frame)
        if in_pieces:
            self.tables.budget = 0
        assert self._attempt(self.tables.unpin, mfn) == (mfn in self.pins)
        self.pins.pop(mfn, None)
        if in_pieces:
            self.counts_are_right()
            self.tables.budget = UNLIMITED
            assert self.tables.reap()

    @rule(frame=small, is_root=st.booleans())
    def hold(self, frame: int, is_root: bool) -> None:
        """As a base pointer or as a descriptor table."""
        mfn, kind = self._mfn(frame), self.tables.root_type if is_root else FrameType.SEGDESC
        expected = self._may_hold(mfn, kind)
        is_done = self._attempt(self.tables.get_page_and_type, mfn, kind)
        assert is_done == expected or expected is None
        if is_done:
            self.held.append((mfn, kind))

    @rule(which=small)
    def let_go(self, which: int) -> None:
        if self.held:
            mfn, _ = self.held.pop(which % len(self.held))
            self.tables.put_page_and_type(mfn)

    @rule(frame=small)
    def give_back(self, frame: int) -> None:
        """Balloon out: the frame goes when nothing names it."""
        mfn = self._own(frame)
        is_its = self.frames.owner[mfn] == OWNER and bool(self.frames.flags[mfn] & ALLOCATED)
        assert self._attempt(self.frames.release_allocation, mfn) == is_its

    @rule()
    def get_more(self) -> None:
        """Balloon in, in the place of one that is gone."""
        for idx, mfn in enumerate(self.own):
            if self.frames.owner[mfn] != OWNER:
                (self.own[idx],) = self.frames.allocate(OWNER, 1)
                return

    @rule(frame=small, slot=small, how=small)
    def change_a_bit(self, frame: int, slot: int, how: int) -> None:
        """The same frame with other flags, or not at all."""
        mfn, slot = self._own(frame), self._slot(slot)
        entry = self.tables.read_entry((mfn << 12) + slot * self.size)
        bit = (PTE_RW, PTE_RW, PTE_P, PTE_US, PTE_G, PTE_PCD)[how % 6]
        self._write_entry(mfn, slot, entry ^ bit)

    @rule(first=small, in_pieces=st.booleans())
    def build_a_tree(self, first: int, in_pieces: bool) -> None:
        """Two leaf tables and all above them, which chance alone would take long to find."""
        levels = self.tables.mode.levels
        chosen = [self._own(first + step) for step in range(levels + 2)]
        if any(self._is_busy(mfn) for mfn in chosen):
            return
        *chain, second_l1, page = chosen
        for mfn in chosen:
            self.frames.memory.frame(mfn)[:] = bytes(4096)
        for upper, lower in pairwise(chain):
            self._write_entry(upper, self._tree_slot(upper == chain[0]), lower << 12 | PTE_P)
        self._write_entry(chain[-2], 1, second_l1 << 12 | PTE_P)
        self._write_entry(chain[-1], 0, page << 12 | PTE_P | PTE_RW)
        self._write_entry(second_l1, 0, page << 12 | PTE_P)
        self._pin(chain[0], self.tables.root_type, in_pieces)

    def _tree_slot(self, is_root: bool) -> int:
        return 3 if is_root and self.width is Width.X86_32P else 0

    @rule(frame=small, root=small, in_pieces=st.booleans())
    def clone_a_root(self, frame: int, root: int, in_pieces: bool) -> None:
        """A second root over the tables of the first: what a PAE guest may not have."""
        mfn = self._own(frame)
        roots = [pinned for pinned, kind in self.pins.items() if kind is self.tables.root_type]
        if self._is_busy(mfn) or not roots:
            return
        self.frames.memory.frame(mfn)[:] = self.frames.memory.frame(roots[root % len(roots)])
        self._clear_xen_slots(mfn)
        self._pin(mfn, self.tables.root_type, in_pieces)

    def _clear_xen_slots(self, mfn: int) -> None:
        xen = self.tables.xen_slots
        if xen.table == self.tables.root_type:
            size = self.size
            self.frames.memory.frame(mfn)[xen.first * size : xen.end * size] = bytes(
                (xen.end - xen.first) * size
            )

    @rule(table=small, slot=small, which=small)
    def show_a_table(self, table: int, slot: int, which: int) -> None:
        """An entry of a table that names that table or another of its level."""
        mfn = self._own(table)
        kind = self.tables.entry_type(mfn)
        if kind in (FrameType.NONE, FrameType.L1):
            return
        level = LEVEL_OF[kind]
        others = [own for own in self.own if self.tables.entry_type(own) in TYPES_OF[level]]
        target = mfn if which % 2 else others[which // 2 % len(others)]
        self._write_entry(mfn, self._slot(slot), target << 12 | PTE_P | PTE_US)

    def _is_busy(self, mfn: int) -> bool:
        return self.frames.owner[mfn] != OWNER or bool(self.frames.type_count[mfn])

    # --- what always holds ------------------------------------------------------------------
    @invariant()
    def counts_are_right(self) -> None:
        if not hasattr(self, "tables"):
            return
        waiting = [*self.tables.doomed, *self.tables.kept.get(0, [])]
        typed = [(mfn, FrameType(self.frames.type[mfn])) for mfn in waiting]
        subject = AuditSubject(self.tables, [*self.held, *typed], [self.lent])
        audit(self.frames, [subject, AuditSubject(self._stranger())])

    def _stranger(self) -> PageTables:
        return PageTables(self.frames, self.width, STRANGER, self.tables.xen_slots)

    @invariant()
    def what_is_held_is_allowed(self) -> None:
        if hasattr(self, "tables"):
            assert self.model.allows(self._all_held())
            check_frames(self.frames, self.tables, (OWNER,))


def frames_of(width: Width, max_examples: int, **more: Any) -> None:
    """Run the machine. Raises whatever it finds."""
    run_machine(FramesMachine, width, max_examples, **more)


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_types_and_counts(width: Width) -> None:
    frames_of(width, **examples(EXAMPLES))
