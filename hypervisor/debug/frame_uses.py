"""Who uses a frame, and so why it is what it is.

A frame's two counts say how many references there are; this finds them one by one, as the audit
does: allocation, pins, what vCPUs and back ends hold, and every entry of every validated table of
every domain. So a frame's report adds up, or a bug of ours is on the screen.

All entries are read once into columns; then each question is one comparison of a column. An
`Uses` is a photograph: it does not follow a machine that runs on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from hypervisor.control.held import holds_of, lent_to
from hypervisor.control.host import Host
from hypervisor.domain.domain import Domain
from hypervisor.mm.entries import LEVEL_OF
from hypervisor.mm.frames import (
    ALLOCATED,
    OWNER_FREE,
    OWNER_XEN,
    PINNED,
    VALIDATED,
    FrameTable,
    FrameType,
)
from hypervisor.mm.table_columns import Column, present_columns
from hypervisor.x86.paging import PAGE_SHIFT, PTE_FRAME, PTE_RW

_CANONICAL_BIT: Final = 1 << 47
_HIGH: Final = 0xFFFF << 48


@dataclass(frozen=True, slots=True)
class FrameView:
    """One row of the frame table."""

    mfn: int
    owner: str  # d1, Xen, nobody
    type: str  # NONE, WRITABLE, L1, ... of the last use where type_count is 0
    type_count: int
    ref_count: int
    pinned: bool
    validated: bool
    pfn: int | None  # by the M2P


@dataclass(frozen=True, slots=True)
class Use:
    """One thing that names a frame, and what it takes for it."""

    references: int
    types: int
    why: str
    table: int | None = None  # the mfn of the table whose entry it is
    slot: int | None = None
    vaddrs: tuple[int, ...] = ()  # what that entry maps, in each address space that has it


@dataclass(frozen=True, slots=True)
class FrameReport:
    """A frame and all its uses. `adds_up`: they are the counts that the frame table has."""

    frame: FrameView
    meaning: str
    uses: tuple[Use, ...]
    adds_up: bool


@dataclass(frozen=True, slots=True)
class _Table:
    """A validated table, and the first address that it maps wherever it is reached."""

    dom: Domain
    kind: FrameType
    level: int
    bases: tuple[int, ...]


def frame_view(host: Host, mfn: int) -> FrameView:
    """The row of `mfn`. Raises ValueError, with a sentence, if there is no such frame."""
    frames = host.frames
    if mfn >= frames.nr_frames:
        raise ValueError(f"mfn {mfn:#x} {frames.whose(mfn)}")
    flags = frames.flags[mfn]
    return FrameView(
        mfn,
        owner_name(frames, mfn),
        FrameType(frames.type[mfn]).name,
        frames.type_count[mfn],
        frames.ref_count[mfn],
        bool(flags & PINNED),
        bool(flags & VALIDATED),
        host.m2p.get(mfn),
    )


def owner_name(frames: FrameTable, mfn: int) -> str:
    """d1, Xen or nobody."""
    owner = frames.owner[mfn]
    return {OWNER_FREE: "nobody", OWNER_XEN: "Xen"}.get(owner, f"d{owner}")


class Uses:
    """Every use of every frame of a machine that stands still."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._tables: dict[int, _Table] = {}
        for dom in host.domains.values():
            self._add_tables(dom)
        parts = [self._columns(mfn, table) for mfn, table in self._tables.items()]
        empty: Column = np.zeros((3, 0), dtype=np.uint64)
        self._mfn, self._slot, self._entry = np.concatenate([empty, *parts], axis=1)
        self._named = (self._entry & np.uint64(PTE_FRAME)) >> np.uint64(PAGE_SHIFT)

    # --- the tables --------------------------------------------------------------------------
    def _add_tables(self, dom: Domain) -> None:
        frames = self._host.frames
        kinds = {
            mfn: FrameType(frames.type[mfn])
            for mfn in frames.owned_by(dom.domid)
            if frames.type_count[mfn] and frames.type[mfn] in LEVEL_OF
        }
        bases = _bases(dom, kinds)
        for mfn, kind in kinds.items():
            self._tables[mfn] = _Table(dom, kind, LEVEL_OF[kind], tuple(sorted(bases[mfn])))

    def _columns(self, mfn: int, table: _Table) -> Column:
        slots, entries = present_columns(table.dom.page_tables, mfn, table.kind)
        columns: Column = np.empty((3, len(slots)), dtype=np.uint64)  # stacked they were floats
        columns[0], columns[1], columns[2] = mfn, slots, entries
        return columns

    def tables_of(self, dom: Domain) -> Iterator[tuple[int, int, tuple[int, ...], int]]:
        """(mfn, level, first addresses mapped, present entries) of each table, top level first."""
        found = [(mfn, table) for mfn, table in self._tables.items() if table.dom is dom]
        for mfn, table in sorted(found, key=lambda row: (-row[1].level, row[1].bases, row[0])):
            vaddrs = tuple(_sign(dom, base) for base in table.bases)
            yield mfn, table.level, vaddrs, int(np.count_nonzero(self._mfn == mfn))

    # --- one frame ---------------------------------------------------------------------------
    def report(self, mfn: int) -> FrameReport:
        """What `mfn` is, and why. Raises ValueError, with a sentence, if there is no such frame."""
        frame = frame_view(self._host, mfn)
        uses = tuple(self._uses(mfn))
        references = sum(use.references for use in uses)
        types = sum(use.types for use in uses)
        adds_up = (references, types) == (frame.ref_count, frame.type_count)
        is_counted = frame.owner not in ("Xen", "nobody")
        return FrameReport(frame, meaning(frame), uses, adds_up or not is_counted)

    def _uses(self, mfn: int) -> Iterator[Use]:
        host = self._host
        owner = host.frames.owner[mfn]
        flags = host.frames.flags[mfn] if owner not in (OWNER_FREE, OWNER_XEN) else 0
        if flags & ALLOCATED:
            yield Use(1, 0, f"its allocation: it is in the reservation of d{owner}")
        if flags & PINNED:
            yield Use(1, 1, f"a pin: d{owner} asked to keep it a table")
        for dom in host.domains.values():
            if (what := lent_to(host, dom).get(mfn)) is not None:
                yield Use(1, 1, f"Xen, which lends it to {_name(dom)}: {what}")
            for hold in holds_of(host, dom):
                if hold.mfn == mfn:
                    yield Use(1, 1, hold.why)
        if owner == OWNER_XEN:
            yield from self._xens(mfn)
        for at in np.flatnonzero(self._named == mfn).tolist():
            yield self._entry_use(mfn, at)

    def _xens(self, mfn: int) -> Iterator[Use]:
        """What Xen has a frame of its own for."""
        host = self._host
        for bits, table in ((32, host.m2p.frames32), (64, host.m2p.frames64)):
            if mfn in table:
                first = (mfn - table[0]) << PAGE_SHIFT
                at = first // (bits // 8)
                yield Use(0, 0, f"the M2P as {bits}-bit guests read it, from mfn {at:#x} on")
        for dom in host.domains.values():
            if mfn in dom.windows.tables:
                yield Use(0, 0, f"a table of the descriptor windows of {_name(dom)}")
        if mfn == host.mappings.zero_frame:
            yield Use(0, 0, "null descriptors, shown where a GDT has no page")
        if mfn in host.gdt_pages():
            yield Use(0, 0, "the page of Xen's own descriptors in every GDT")

    def _entry_use(self, mfn: int, at: int) -> Use:
        named_by, slot, entry = (int(c[at]) for c in (self._mfn, self._slot, self._entry))
        table = self._tables[named_by]
        reach = table.dom.page_tables.mode.reach(table.level)
        vaddrs = tuple(_sign(table.dom, base + slot * reach) for base in table.bases)
        where = f"slot {slot:#x} of {_name(table.dom)}'s {table.kind.name} table mfn {named_by:#x}"
        if table.level > 1:
            if named_by == mfn:
                return Use(0, 0, f"{where}: the table names itself", named_by, slot, vaddrs)
            is_linear = LEVEL_OF.get(self._host.frames.type[mfn]) == table.level
            what = " (a linear entry)" if is_linear else ""
            return Use(1, 1, f"{where} names it{what}", named_by, slot, vaddrs)
        if entry & PTE_RW:
            return Use(1, 1, f"{where} maps it writable", named_by, slot, vaddrs)
        return Use(1, 0, f"{where} maps it read-only", named_by, slot, vaddrs)


def _bases(dom: Domain, kinds: dict[int, FrameType]) -> defaultdict[int, set[int]]:
    """For each table the first addresses it maps, as it is reached from tables at the top level.

    Level by level, so that entries naming a table of their own level lead nowhere.
    """
    tables = dom.page_tables
    bases: defaultdict[int, set[int]] = defaultdict(set)
    for level in range(tables.mode.levels, 1, -1):
        reach = tables.mode.reach(level)
        for mfn, kind in kinds.items():
            if LEVEL_OF[kind] != level:
                continue
            if kind == tables.root_type:
                bases[mfn].add(0)
            for slot, entry in tables.present_entries(mfn, kind):
                below = (entry & PTE_FRAME) >> PAGE_SHIFT
                if below in kinds and LEVEL_OF[kinds[below]] == level - 1:
                    bases[below] |= {base + slot * reach for base in bases[mfn]}
    return bases


def _sign(dom: Domain, linear: int) -> int:
    is_high = dom.width.is_64 and linear & _CANONICAL_BIT
    return linear | _HIGH if is_high else linear


def _name(dom: Domain) -> str:
    return f"d{dom.domid}"


_CHECKED: Final = "every entry of it has been checked, and no mapping of it may be writable"


def meaning(frame: FrameView) -> str:
    """What its type and count mean for a frame, as a sentence."""
    if frame.owner == "nobody":
        return "a free frame"
    if frame.owner == "Xen":
        return "a frame of Xen's own, which no domain may map but where Xen's slots show it"
    if not frame.type_count:
        last = "" if frame.type == "NONE" else f" (it was {frame.type} last)"
        return f"no use needs it to stay anything{last}: the next use decides what it becomes"
    uses = "1 use needs" if frame.type_count == 1 else f"{frame.type_count} uses need"
    if frame.type == FrameType.WRITABLE.name:
        return f"ordinary memory while {uses} to write it: it cannot become a page table"
    if frame.type == FrameType.SEGDESC.name:
        return f"a page of segment descriptors while {uses} it to be one: {_CHECKED}"
    return f"an {frame.type} table while {uses} it to be one: {_CHECKED}"
