"""What goes into an audit and what may come out; `audit` needs numpy for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypervisor.mm.frames import FrameType
from hypervisor.mm.pagetables import PageTables


class AuditError(Exception):
    """The frame table contradicts the page tables; the message lists the differences."""


@dataclass(slots=True)
class AuditSubject:
    """What one domain holds besides what its tables say."""

    tables: PageTables
    typed: list[tuple[int, FrameType]] = field(default_factory=list)  # held with a type reference
    lent: list[int] = field(default_factory=list)  # Xen pages that it may map
    may_map_others: bool = False  # privileged: frames of other domains, never Xen's
