"""Two domains over one frame table, one of them privileged: nobody gets where it may not.

Where `test_frames` foretells every outcome for one domain, this asks for what must be true of the
whole: counts are what the tables say, no walk leads to a stranger's frame or can write a table, a
refusal changes nothing (not a byte of memory, not a count), no stale translation can hurt, no
descriptor reaches ring 0. Frames go from one domain to the other by way of the free list; the
privileged one maps the other's; Xen lends pages and takes them back; work is cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.audit import AuditSubject, audit
from hypervisor.mm.entries import CHEAP_BITS, TYPE_OF_LEVEL
from hypervisor.mm.frames import ALLOCATED, FrameTable, FrameType
from hypervisor.mm.hole_map import HOLE
from hypervisor.mm.pagetables import UNLIMITED, OutOfBudget, PageTables, XenSlots
from hypervisor.x86.paging import PTE_A, PTE_D, PTE_G, PTE_P, PTE_PCD, PTE_RW, PTE_US, pte_mfn
from tests.fuzz.pools import DESCRIPTORS
from tests.support.effort import examples, run_machine
from tests.support.frame_properties import (
    PRIVILEGED,
    StaleTranslations,
    check_descriptors,
    mappings,
    owners_seen_by,
    state,
)
from tests.support.reach import check_frames

OTHER: Final = 2
NR_FRAMES: Final = 28
EACH: Final = 9
EXAMPLES: Final = 50

small = st.integers(0, 15)
either = st.sampled_from((PRIVILEGED, OTHER))
flags = st.sampled_from(
    (
        0,
        PTE_P,
        PTE_P,
        PTE_P | PTE_RW,
        PTE_P | PTE_RW,
        PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D,
        PTE_P | PTE_US | PTE_G,
        PTE_P | PTE_PCD,
    )
)
#: Table, slot, frame named, flags, and by which way.
Write = tuple[int, int, int, int, int]
writes = st.lists(st.tuples(small, small, small, flags, st.integers(0, 5)), min_size=3, max_size=12)


class TwoDomains(RuleBasedStateMachine):
    """What both do, in any order."""

    width: ClassVar[Width]

    @initialize()
    def start(self) -> None:
        self.frames = frames = FrameTable(MachineMemory(NR_FRAMES * 4096))
        (xen,) = frames.allocate_xen(1)
        hole = HOLE[self.width]
        self.size = 4 if self.width is Width.X86_32 else 8
        first = (xen << 12 | PTE_P | PTE_RW).to_bytes(self.size, "little")
        rest = bytes(self.size * (hole.end_slot - hole.first_slot - 1))
        slots = XenSlots(hole.table, hole.first_slot, hole.end_slot, first + rest)
        self.tables = {
            domid: PageTables(frames, self.width, domid, slots) for domid in (PRIVILEGED, OTHER)
        }
        self.own = {domid: frames.allocate(domid, EACH) for domid in self.tables}
        self.lent: dict[int, list[int]] = {domid: [] for domid in self.tables}
        self.held: dict[int, list[tuple[int, FrameType]]] = {domid: [] for domid in self.tables}
        self.beyond = [xen, 0, NR_FRAMES, (1 << 20) - 1]
        self.stale = StaleTranslations(frames)

    # --- what there is to choose from -----------------------------------------------------------
    def _mfn(self, domid: int, choice: int) -> int:
        """Mostly one of the domain's own."""
        own, lent = self.own[domid], self.lent[domid]
        if choice < 9:
            return own[choice]
        if choice < 12:
            return self._table(domid, choice)
        if choice == 12 and lent:
            return lent[0]
        if choice == 13:
            return self.beyond[len(self.held[domid]) % len(self.beyond)]
        theirs = self.own[OTHER if domid == PRIVILEGED else PRIVILEGED]
        return theirs[choice % len(theirs)]

    def _table(self, domid: int, choice: int) -> int:
        """One that is a table now, if there is any and the choice is above the number of frames."""
        own = self.own[domid]
        in_use = [mfn for mfn in own if self.tables[domid].entry_type(mfn)]
        if choice >= EACH and in_use:
            return in_use[choice % len(in_use)]
        return own[choice % EACH]

    def _slot(self, choice: int) -> int:
        return (0, 1, 3, HOLE[self.width].first_slot)[choice % 4]

    def _attempt(self, operation: Callable[..., None], *args: Any, **kwargs: Any) -> bool:
        """Whether it was done; if it was refused, nothing has changed."""
        before = state(self.frames, self.width)
        try:
            operation(*args, **kwargs)
        except XenError:
            assert state(self.frames, self.width) == before, "a refusal left something behind"
            return False
        return True

    # --- entries --------------------------------------------------------------------------------
    @rule(who=either, writes=writes)
    def write(self, who: int, writes: list[Write]) -> None:
        """Entries: through a mapping, by hypercall, with another's frame, by a plain store."""
        for table, slot, named, flags, how in writes:
            entry = self._mfn(who, named) << 12 | flags
            self._write_entry(who, self._table(who, table), self._slot(slot), entry, how)
            self.stale.look(self.tables.values())

    def _write_entry(self, who: int, mfn: int, slot: int, entry: int, how: int) -> None:
        tables, frames = self.tables[who], self.frames
        if frames.owner[mfn] != who:
            return
        maddr = (mfn << 12) + slot * self.size
        kind = tables.entry_type(mfn)
        if kind is FrameType.NONE:
            if not frames.type_count[mfn] or frames.type[mfn] == FrameType.WRITABLE:
                frames.memory.write(maddr, entry.to_bytes(self.size, "little"))
        elif kind is not FrameType.L1:
            self._attempt(tables.update_entry, maddr, entry, preserve_ad=how == 3)
        elif how == 5:
            assert self._attempt(tables.write_entry, maddr, entry) == self._may(
                who, maddr, entry, who, 0
            )
        else:
            owner = OTHER if how == 4 and who == PRIVILEGED else who
            expected = self._may(who, maddr, entry, owner, CHEAP_BITS)
            done = self._attempt(
                tables.update_entry, maddr, entry, preserve_ad=how == 3, owner=owner
            )
            assert done == expected

    def _may(self, who: int, maddr: int, entry: int, owner: int, cheap: int) -> bool:
        """Whether a leaf may be so: the rule of get_page_from_l1e, in one place."""
        tables, frames = self.tables[who], self.frames
        if not entry & PTE_P:
            return True
        old, target = tables.read_entry(maddr), pte_mfn(entry)
        if entry & tables.disallowed[1]:
            return False
        if cheap and old & PTE_P and not (old ^ entry) & ~cheap:
            return True
        if target >= NR_FRAMES or frames.owner[target] != owner:
            return False
        is_other = frames.type_count[target] and frames.type[target] != FrameType.WRITABLE
        return not (entry & PTE_RW and is_other)

    @rule(who=either, table=small, slot=small, bit=st.sampled_from((PTE_RW, PTE_RW, PTE_P, PTE_US)))
    def change_a_bit(self, who: int, table: int, slot: int, bit: int) -> None:
        """The same frame with other rights, or not at all."""
        mfn, slot = self._table(who, table), self._slot(slot)
        entry = self.tables[who].read_entry((mfn << 12) + slot * self.size)
        self._write_entry(who, mfn, slot, entry ^ bit, 0)

    @rule(who=either, frame=small, which=st.lists(st.sampled_from(DESCRIPTORS), max_size=3))
    def use_descriptors(self, who: int, frame: int, which: list[int]) -> None:
        """Written into memory that nothing else uses, which then is a descriptor table."""
        mfn = self.own[who][frame % EACH]
        if self.frames.owner[mfn] == who and not self.frames.type_count[mfn]:
            data = b"".join(desc.to_bytes(8, "little") for desc in which)
            self.frames.memory.write(mfn << 12, data)
            if self._attempt(self.tables[who].get_page_and_type, mfn, FrameType.SEGDESC):
                self.held[who].append((mfn, FrameType.SEGDESC))

    # --- tables ---------------------------------------------------------------------------------
    @rule(who=either, frame=small, level=st.integers(1, 4), in_pieces=st.booleans())
    def pin(self, who: int, frame: int, level: int, in_pieces: bool) -> None:
        tables = self.tables[who]
        if level <= tables.mode.levels:
            operation = self._in_pieces if in_pieces else tables.pin
            args = (tables,) if in_pieces else ()
            self._attempt(operation, *args, self._mfn(who, frame), TYPE_OF_LEVEL[level])

    def _in_pieces(self, tables: PageTables, mfn: int, kind: FrameType) -> None:
        try:
            for _ in range(50):
                tables.budget = (tables.mode.levels - 1) * (4096 // self.size) + 1
                try:
                    tables.retryable(0, tables.pin, mfn, kind)
                    return
                except OutOfBudget:
                    self.counts_are_right()
            raise AssertionError("no progress")
        finally:
            tables.budget = UNLIMITED
            assert tables.reap()

    @rule(who=either, frame=small, in_pieces=st.booleans())
    def unpin(self, who: int, frame: int, in_pieces: bool) -> None:
        tables = self.tables[who]
        tables.budget = 0 if in_pieces else UNLIMITED
        try:
            self._attempt(tables.unpin, self._mfn(who, frame))
            self.counts_are_right()
        finally:
            tables.budget = UNLIMITED
            assert tables.reap()

    @rule(who=either, first=small, in_pieces=st.booleans())
    def build_a_tree(self, who: int, first: int, in_pieces: bool) -> None:
        """Tables from the top down to a page, and a second leaf table, in frames that nothing
        uses, pinned."""
        tables, frames, own = self.tables[who], self.frames, self.own[who]
        chosen = [own[(first + step) % EACH] for step in range(tables.mode.levels + 2)]
        if any(frames.owner[mfn] != who or frames.type_count[mfn] for mfn in chosen):
            return
        *chain, second = chosen
        for mfn in chosen:
            frames.memory.frame(mfn)[:] = bytes(4096)
        for upper, lower in pairwise(chain):
            is_pae_root = self.width is Width.X86_32P and upper == chain[0]
            entry = lower << 12 | (PTE_P if is_pae_root else PTE_P | PTE_RW)
            self._write_entry(who, upper, 3 if is_pae_root else 0, entry, 0)
        self._write_entry(who, chain[-3], 1, second << 12 | PTE_P, 0)
        if in_pieces:
            self._attempt(self._in_pieces, tables, chain[0], tables.root_type)
        else:
            self._attempt(tables.pin, chain[0], tables.root_type)

    @rule(who=either, table=small, which=small)
    def show_a_table(self, who: int, table: int, which: int) -> None:
        """An entry that names a table of its own level, or the page's own table."""
        mfn = self._table(who, table)
        target = self._table(who, which) if which % 2 else mfn
        self._write_entry(who, mfn, 1, target << 12 | PTE_P | (PTE_RW if which % 8 == 0 else 0), 0)

    @rule(who=either, frame=small, is_root=st.booleans())
    def hold(self, who: int, frame: int, is_root: bool) -> None:
        """As a base pointer or as a descriptor table."""
        tables, mfn = self.tables[who], self._mfn(who, frame)
        kind = tables.root_type if is_root else FrameType.SEGDESC
        if self._attempt(tables.get_page_and_type, mfn, kind):
            self.held[who].append((mfn, kind))

    @rule(who=either, which=small)
    def let_go(self, who: int, which: int) -> None:
        if held := self.held[who]:
            mfn, _ = held.pop(which % len(held))
            self.tables[who].put_page_and_type(mfn)

    # --- frames come and go -----------------------------------------------------------------------
    @rule(who=either, frame=small)
    def give_back(self, who: int, frame: int) -> None:
        mfn = self.own[who][frame % EACH]
        if self.frames.owner[mfn] == who and self.frames.flags[mfn] & ALLOCATED:
            self.frames.release_allocation(mfn)

    @rule(who=either)
    def get_more(self, who: int) -> None:
        """In the place of one that is gone, perhaps to the other domain."""
        for idx, mfn in enumerate(self.own[who]):
            if self.frames.owner[mfn] != who or not self.frames.flags[mfn] & ALLOCATED:
                if self.frames.nr_free:
                    (self.own[who][idx],) = self.frames.allocate(who, 1)
                return

    def _unmap(self, mfn: int) -> None:
        """No leaf maps it any more."""
        for (table, slot), (domid, named, _) in mappings(self.tables.values()).items():
            if named == mfn:
                self._write_entry(domid, table, slot, 0, 0)

    @rule(who=either, frame=small, written=st.booleans())
    def page_becomes_a_table(self, who: int, frame: int, written: bool) -> None:
        """Mapped until now, and a table from now on, with what was written there."""
        mfn = self.own[who][frame % EACH]
        self._unmap(mfn)
        self.stale.look(self.tables.values())
        if self.frames.owner[mfn] == who and not self._in_use(mfn):
            if not written:
                self.frames.memory.frame(mfn)[:] = bytes(4096)
            self._attempt(self.tables[who].pin, mfn, FrameType.L1)

    def _in_use(self, mfn: int) -> bool:
        return bool(self.frames.type_count[mfn])

    @rule(who=either, frame=small)
    def frame_changes_hands(self, who: int, frame: int) -> None:
        """Given back while it is mapped, unmapped, and somebody else's."""
        other = OTHER if who == PRIVILEGED else PRIVILEGED
        for domid in (who, other):
            mfn = self.own[domid][frame % EACH]
            if self.frames.owner[mfn] == domid and self.frames.flags[mfn] & ALLOCATED:
                self.frames.release_allocation(mfn)
                self._unmap(mfn)
        self.stale.look(self.tables.values())
        self.get_more(who)  # the frame that was given back last
        self.get_more(other)

    @rule(who=either)
    def lend(self, who: int) -> None:
        """As a grant table grows."""
        if not self.lent[who] and self.frames.nr_free:
            self.lent[who] = self.frames.allocate(who, 1)
            self.frames.lend(self.lent[who][0])

    @rule(who=either)
    def take_back(self, who: int) -> None:
        for mfn in self.lent[who]:
            self.frames.take_back(mfn)
        self.lent[who] = []

    @rule()
    def flush(self) -> None:
        self.stale.flush()

    # --- what always holds ------------------------------------------------------------------------
    @invariant()
    def counts_are_right(self) -> None:
        if not hasattr(self, "stale"):
            return
        subjects = []
        for domid, tables in self.tables.items():
            waiting = [*tables.doomed, *tables.kept.get(0, [])]
            typed = [(mfn, FrameType(self.frames.type[mfn])) for mfn in waiting]
            held = [*self.held[domid], *typed]
            subjects.append(AuditSubject(tables, held, self.lent[domid], domid == PRIVILEGED))
        audit(self.frames, subjects)

    @invariant()
    def nobody_gets_where_it_may_not(self) -> None:
        if not hasattr(self, "stale"):
            return
        for domid, tables in self.tables.items():
            check_frames(self.frames, tables, owners_seen_by(domid, self.tables.keys()))
        check_descriptors(self.frames, dict.fromkeys(self.tables, self.width))
        self.stale.look(self.tables.values())


def two_domains(width: Width, max_examples: int, **more: Any) -> None:
    """Run the machine. Raises whatever it finds."""
    run_machine(TwoDomains, width, max_examples, **more)


@pytest.mark.slow
@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_nobody_gets_where_it_may_not(width: Width) -> None:
    two_domains(width, **examples(EXAMPLES))
