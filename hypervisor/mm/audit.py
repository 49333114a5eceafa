"""The audit: every count of the frame table, recomputed from what the page tables say.

Independent of how the counts came about: it starts from what is held besides the tables (pins, base
pointers, descriptor tables), reads every table that is validated, and compares. Then it looks at
each entry by itself: no table names a frame of another domain, none maps writable what is not
ordinary memory, none has a bit that Xen refuses, none shows a table of its own level writable, and
Xen's slots hold what Xen put there. A difference is a bug of ours, and never an answer to a guest.

Whole tables and whole columns are taken at once (numpy): a machine of 512 MB takes some 50 ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from hypervisor.mm.audit_subject import AuditError, AuditSubject
from hypervisor.mm.entries import LEVEL_OF
from hypervisor.mm.frames import (
    ALLOCATED,
    OWNER_FREE,
    OWNER_XEN,
    PINNED,
    VALIDATED,
    VALIDATED_TYPES,
    FrameTable,
    FrameType,
)
from hypervisor.mm.pagetables import PageTables
from hypervisor.mm.table_columns import Column, present_columns, words_of
from hypervisor.x86.paging import PAGE_SHIFT, PTE_A, PTE_D, PTE_FRAME, PTE_RW

__all__ = ["AuditError", "AuditSubject", "audit"]

_MOST_SHOWN: Final = 20


def audit(frames: FrameTable, subjects: Iterable[AuditSubject]) -> None:
    """Compare all counts. Raises AuditError with a line for each frame that is wrong."""
    found = _Audit(frames)
    for subject in subjects:
        found.count_subject(subject)
    found.compare()
    found.check_free()
    if found.problems:
        raise AuditError("\n".join(found.problems[:_MOST_SHOWN]))


class _Audit:
    """The counts as they should be, and what is wrong."""

    def __init__(self, frames: FrameTable) -> None:
        self.frames = frames
        self.problems: list[str] = []
        self.owner = np.frombuffer(frames.owner, dtype=np.uint16)
        self.type = np.frombuffer(frames.type, dtype=np.uint8)
        self.flags = np.frombuffer(frames.flags, dtype=np.uint8)
        self.type_count = np.frombuffer(frames.type_count, dtype=np.uint32)
        self.ref_count = np.frombuffer(frames.ref_count, dtype=np.uint32)
        is_owned = (self.owner != OWNER_FREE) & (self.owner != OWNER_XEN)
        pinned = is_owned & (self.flags & PINNED != 0)
        allocated = is_owned & (self.flags & ALLOCATED != 0)
        self.types = pinned.astype(np.int64)
        self.refs = self.types + allocated

    def count_subject(self, subject: AuditSubject) -> None:
        """All that a domain holds, and all that its tables name."""
        for mfn, kind in subject.typed:
            self.refs[mfn] += 1
            self.types[mfn] += 1
            if self.frames.type[mfn] != kind:
                self._complain(mfn, f"but it is held as {kind.name}")
        for mfn in subject.lent:
            self.refs[mfn] += 1
            self.types[mfn] += 1
        in_use = (self.owner == subject.tables.domid) & (self.type_count != 0)
        for kind in map(FrameType, LEVEL_OF):
            for mfn in np.flatnonzero(in_use & (self.type == kind)).tolist():
                self._count_table(subject, mfn, kind)

    # --- one table -------------------------------------------------------------------------
    def _count_table(self, subject: AuditSubject, mfn: int, kind: FrameType) -> None:
        tables = subject.tables
        level = LEVEL_OF[kind]
        slots, entries = present_columns(tables, mfn, kind)
        targets = (entries & PTE_FRAME) >> PAGE_SHIFT
        is_writable = entries & PTE_RW != 0
        is_inside = targets < self.frames.nr_frames
        known = np.where(is_inside, targets, 0).astype(np.int64)
        is_linear = (level > 1) & np.isin(self.type[known], _types_of(level))
        holds = is_inside & ~(is_linear & (targets == mfn))  # of itself a table holds nothing
        np.add.at(self.refs, known[holds], 1)
        np.add.at(self.types, known[holds & (is_writable | (level > 1))], 1)
        is_named_right = is_inside & self._may_name(subject, known, level)
        if level == 1:
            is_type_right = ~is_writable | (self.type[known] == FrameType.WRITABLE)
        else:
            is_type_right = np.isin(self.type[known], _types_of(level - 1)) & ~is_linear
            is_type_right |= is_linear & ~is_writable
        is_allowed = entries & np.uint64(tables.disallowed[level]) == 0
        for at in np.flatnonzero(~(is_named_right & is_type_right & is_allowed)).tolist():
            self._complain_of_entry(tables, mfn, kind, int(slots[at]), int(entries[at]))
        if not _xen_slots_intact(tables, mfn, kind):
            self._complain(mfn, "but Xen's slots are not what Xen put there")

    def _may_name(self, subject: AuditSubject, targets: Column, level: int) -> Column:
        owners = self.owner[targets]
        may: Column = owners == subject.tables.domid
        if level == 1 and subject.may_map_others:
            may = may | ((owners != OWNER_FREE) & (owners != OWNER_XEN))
        return may

    def _complain_of_entry(
        self, tables: PageTables, mfn: int, kind: FrameType, slot: int, entry: int
    ) -> None:
        where = f"slot {slot} of {kind.name} table mfn {mfn:#x} of d{tables.domid}"
        bad = entry & tables.disallowed[LEVEL_OF[kind]]
        target = (entry & PTE_FRAME) >> PAGE_SHIFT
        if bad:
            self.problems.append(f"{where} is {entry:#x}: bits that are not allowed")
        else:
            self.problems.append(f"{where} is {entry:#x}, and names {self.frames.describe(target)}")

    # --- the whole ---------------------------------------------------------------------------
    def compare(self) -> None:
        """The counts that are against those that should be."""
        is_xens = self.owner == OWNER_XEN
        is_right = (self.refs == self.ref_count) & (self.types == self.type_count)
        for mfn in np.flatnonzero(~is_right & ~is_xens).tolist():
            self._complain(mfn, f"but {self.refs[mfn]} references and {self.types[mfn]} uses exist")
        is_validated = self.flags & VALIDATED != 0
        should_be = (self.types > 0) & np.isin(self.type, [int(kind) for kind in VALIDATED_TYPES])
        for mfn in np.flatnonzero((is_validated != should_be) & ~is_xens).tolist():
            self._complain(mfn, f"and VALIDATED is {bool(is_validated[mfn])}")

    def check_free(self) -> None:
        """What belongs to nobody is on the free list, once, and without marks."""
        frames = self.frames
        ownerless = [int(mfn) for mfn in np.flatnonzero(self.owner == OWNER_FREE) if mfn]
        if sorted(frames.free_list()) != ownerless:
            self.problems.append(
                f"{len(ownerless)} frames belong to nobody, {frames.nr_free} are on the free list"
            )
        for mfn in np.flatnonzero((self.owner == OWNER_FREE) & (self.flags != 0)).tolist():
            self._complain(mfn, f"but its flags are {frames.flags[mfn]:#x}")

    def _complain(self, mfn: int, what: str) -> None:
        self.problems.append(f"{self.frames.describe(mfn)}, {what}")


def _types_of(level: int) -> list[int]:
    """The types of a table of `level`."""
    return [int(kind) for kind in LEVEL_OF if LEVEL_OF[kind] == level]


def _xen_slots_intact(tables: PageTables, mfn: int, kind: FrameType) -> bool:
    """Xen's slots are as filled in, but for what the MMU sets."""
    xen = tables.xen_slots
    if kind != xen.table:
        return True
    size = tables.mode.entry_bytes
    was = np.frombuffer(xen.entries, dtype=np.uint32 if size == 4 else np.uint64)
    differences = (words_of(tables, mfn)[xen.first : xen.end] ^ was) & ~np.uint64(PTE_A | PTE_D)
    return not differences.any()
