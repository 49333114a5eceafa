"""The audit: every count of the frame table, recomputed from what the page tables say.

Independent of how the counts came about: it starts from the roots that are held (pins, base
pointers, descriptor tables), walks what is validated, and compares. Then it looks at each entry by
itself: no table names a frame of another domain, none maps writable what is not ordinary memory,
none has a bit that Xen refuses, and Xen's slots hold what Xen put there. A difference is a bug of
ours, and never an answer to a guest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from hypervisor.mm.entries import LEVEL_OF, TYPE_OF_LEVEL
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
from hypervisor.x86.paging import PAGE_SHIFT, PTE_A, PTE_D, PTE_P, PTE_RW, pte_mfn

_MOST_SHOWN: Final = 20


class AuditError(Exception):
    """The frame table contradicts the page tables; the message lists the differences."""


@dataclass(slots=True)
class AuditSubject:
    """What one domain holds besides what its tables say."""

    tables: PageTables
    typed: list[tuple[int, FrameType]] = field(default_factory=list)  # held with a type reference
    lent: list[int] = field(default_factory=list)  # Xen pages that it may map
    may_map_others: bool = False  # privileged: frames of other domains, never Xen's


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
        self.refs: Counter[int] = Counter()
        self.types: Counter[int] = Counter()
        self.problems: list[str] = []
        for mfn, owner in enumerate(frames.owner):
            if owner not in (OWNER_FREE, OWNER_XEN):
                pinned = bool(frames.flags[mfn] & PINNED)
                self.refs[mfn] += bool(frames.flags[mfn] & ALLOCATED) + pinned
                self.types[mfn] += pinned

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
        domid = subject.tables.domid
        for mfn, owner in enumerate(self.frames.owner):
            if owner == domid and self.frames.type_count[mfn]:
                kind = FrameType(self.frames.type[mfn])
                if kind in LEVEL_OF:
                    self._count_table(subject, mfn, kind)

    def _count_table(self, subject: AuditSubject, mfn: int, kind: FrameType) -> None:
        tables = subject.tables
        level = LEVEL_OF[kind]
        for slot, entry in _entries(tables, mfn, kind):
            target = pte_mfn(entry)
            self.refs[target] += 1
            self.types[target] += level > 1 or bool(entry & PTE_RW)
            where = f"slot {slot} of {kind.name} table mfn {mfn:#x} of d{tables.domid}"
            if not self._may_name(subject, target, level):
                self.problems.append(f"{where} names {self.frames.describe(target)}")
            elif not self._is_type_right(entry, level, target):
                self.problems.append(f"{where} is {entry:#x}, but {self.frames.describe(target)}")
            if entry & tables.disallowed[level]:
                self.problems.append(f"{where} is {entry:#x}: bits that are not allowed")
        if not _xen_slots_intact(tables, mfn, kind):
            self._complain(mfn, "but Xen's slots are not what Xen put there")

    def _may_name(self, subject: AuditSubject, target: int, level: int) -> bool:
        if target >= self.frames.nr_frames:
            return False
        owner = self.frames.owner[target]
        if owner == subject.tables.domid:
            return True
        return level == 1 and subject.may_map_others and owner not in (OWNER_FREE, OWNER_XEN)

    def _is_type_right(self, entry: int, level: int, target: int) -> bool:
        kind = self.frames.type[target]
        if level == 1:
            return not entry & PTE_RW or kind == FrameType.WRITABLE
        return kind == TYPE_OF_LEVEL[level - 1] or (level == 3 and kind == FrameType.XEN_L2)

    def compare(self) -> None:
        """The counts that are against those that should be."""
        frames = self.frames
        for mfn in range(frames.nr_frames):
            if frames.owner[mfn] == OWNER_XEN:
                continue
            refs, types = self.refs[mfn], self.types[mfn]
            if (refs, types) != (frames.ref_count[mfn], frames.type_count[mfn]):
                self._complain(mfn, f"but {refs} references and {types} uses exist")
            is_validated = bool(frames.flags[mfn] & VALIDATED)
            should_be = bool(types) and FrameType(frames.type[mfn]) in VALIDATED_TYPES
            if is_validated != should_be:
                self._complain(mfn, f"and VALIDATED is {is_validated}")

    def check_free(self) -> None:
        """What belongs to nobody is on the free list, once, and empty."""
        frames = self.frames
        ownerless = [mfn for mfn in range(1, frames.nr_frames) if frames.owner[mfn] == OWNER_FREE]
        if sorted(frames.free_list()) != ownerless:
            self.problems.append(
                f"{len(ownerless)} frames belong to nobody, {frames.nr_free} are on the free list"
            )
        for mfn in ownerless:
            if frames.flags[mfn]:
                self._complain(mfn, f"but its flags are {frames.flags[mfn]:#x}")

    def _complain(self, mfn: int, what: str) -> None:
        self.problems.append(f"{self.frames.describe(mfn)}, {what}")


def _entries(tables: PageTables, mfn: int, kind: FrameType) -> Iterator[tuple[int, int]]:
    """Present entries of a table in the guest's slots, with their slots."""
    size = tables.mode.entry_bytes
    xen = tables.xen_slots
    for slot in range(tables.mode.slots[LEVEL_OF[kind]]):
        if kind == xen.table and xen.first <= slot < xen.end:
            continue
        entry = tables.read_entry((mfn << PAGE_SHIFT) + slot * size)
        if entry & PTE_P:
            yield slot, entry


def _xen_slots_intact(tables: PageTables, mfn: int, kind: FrameType) -> bool:
    """Xen's slots are as filled in, but for what the MMU sets."""
    xen = tables.xen_slots
    if kind != xen.table:
        return True
    size = tables.mode.entry_bytes
    start = (mfn << PAGE_SHIFT) + xen.first * size
    for at in range(0, len(xen.entries), size):
        is_now = tables.read_entry(start + at)
        was = int.from_bytes(xen.entries[at : at + size], "little")
        if (is_now ^ was) & ~(PTE_A | PTE_D):
            return False
    return True
