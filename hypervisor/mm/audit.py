"""The audit: every count of the frame table, recomputed from what the page tables say.

Independent of how the counts came about: it starts from the roots that are held (pins, base
pointers, descriptor tables), walks what is validated, and compares. A difference is a bug of ours,
so it is an AssertionError in spirit and never an answer to a guest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hypervisor.mm.frames import ALLOCATED, OWNER_FREE, OWNER_XEN, PINNED, FrameTable, FrameType
from hypervisor.mm.pagetables import PageTables
from hypervisor.x86.paging import PTE_FRAME, PTE_P, PTE_RW, pte_mfn

_TABLES = {FrameType.L1: 1, FrameType.L2: 2, FrameType.XEN_L2: 2, FrameType.L3: 3, FrameType.L4: 4}


class AuditError(Exception):
    """The frame table contradicts the page tables; the message lists the differences."""


@dataclass(slots=True)
class AuditSubject:
    """What one domain holds besides what its tables say."""

    tables: PageTables
    typed: list[tuple[int, FrameType]] = field(default_factory=list)  # held with a type reference
    lent: list[int] = field(default_factory=list)  # Xen pages that it may map


def audit(frames: FrameTable, subjects: Iterable[AuditSubject]) -> None:
    """Compare all counts. Raises AuditError with a line for each frame that is wrong."""
    refs: Counter[int] = Counter()
    types: Counter[int] = Counter()
    known = list(subjects)
    problems: list[str] = []
    for mfn in range(frames.nr_frames):
        if frames.owner[mfn] not in (OWNER_FREE, OWNER_XEN):
            refs[mfn] += bool(frames.flags[mfn] & ALLOCATED)
            pinned = bool(frames.flags[mfn] & PINNED)
            refs[mfn] += pinned
            types[mfn] += pinned
    for subject in known:
        _count_subject(frames, subject, refs, types, problems)
    for mfn in range(frames.nr_frames):
        if frames.owner[mfn] == OWNER_XEN:
            continue
        if (refs[mfn], types[mfn]) != (frames.ref_count[mfn], frames.type_count[mfn]):
            problems.append(
                f"{frames.describe(mfn)}, but {refs[mfn]} references and {types[mfn]} uses exist"
            )
    if problems:
        raise AuditError("\n".join(problems[:20]))


def _count_subject(
    frames: FrameTable,
    subject: AuditSubject,
    refs: Counter[int],
    types: Counter[int],
    problems: list[str],
) -> None:
    for mfn, kind in subject.typed:
        refs[mfn] += 1
        types[mfn] += 1
        if frames.type[mfn] != kind:
            problems.append(f"{frames.describe(mfn)}, but it is held as {kind.name}")
    for mfn in subject.lent:
        refs[mfn] += 1
        types[mfn] += 1
    domid = subject.tables.domid
    for mfn in range(frames.nr_frames):
        if frames.owner[mfn] != domid or not frames.type_count[mfn]:
            continue
        kind = FrameType(frames.type[mfn])
        if kind in _TABLES:
            for entry, target in _entries(subject.tables, mfn, kind):
                refs[target] += 1
                is_typed = _TABLES[kind] > 1 or bool(entry & PTE_RW)
                types[target] += is_typed
                if target >= frames.nr_frames or frames.owner[target] != domid:
                    problems.append(
                        f"{kind.name} table mfn {mfn:#x} of d{domid} names "
                        f"{frames.describe(target)}"
                    )


def _entries(tables: PageTables, mfn: int, kind: FrameType) -> Iterator[tuple[int, int]]:
    """Present entries of a table in the guest's slots, and the frame each names."""
    size = tables.mode.entry_bytes
    xen = tables.xen_slots
    for slot in range(tables.mode.slots[_TABLES[kind]]):
        if kind == xen.table and xen.first <= slot < xen.end:
            continue
        entry = tables.read_entry((mfn << 12) + slot * size)
        if entry & PTE_P:
            yield entry, pte_mfn(entry & (PTE_FRAME | PTE_P | PTE_RW))
