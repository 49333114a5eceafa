"""A domain's grant table: frames of Xen's that the domain may map and write.

Version 1 entries, eight bytes each, 512 a frame (struct grant_entry_v1 in public/grant_table.h).
The guest writes an entry to grant, and names it by number. Mapping and copying are not here yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.domain.domain import Domain
from hypervisor.mm.frames import FrameTable

MAX_FRAMES: Final = 64  # Xen's default gnttab_max_frames
INITIAL_FRAMES: Final = 1
GRANT_TABLE_VERSION: Final = 1


@dataclass(slots=True)
class GrantTable:
    """The frames of one domain's table."""

    domid: int
    frames: list[int] = field(default_factory=list)


class GrantTables:
    """All domains' tables."""

    def __init__(self, frames: FrameTable) -> None:
        self._frames = frames
        self.tables: dict[int, GrantTable] = {}

    def nr_frames(self, dom: Domain) -> int:
        """How many frames the table of `dom` has; the first is there from the start, in effect."""
        table = self.tables.get(dom.domid)
        return INITIAL_FRAMES if table is None else len(table.frames)

    def grown(self, dom: Domain, nr_frames: int) -> GrantTable:
        """The table of `dom`, with at least `nr_frames` frames.

        Raises XenError, nothing changed, if there may not or cannot be so many.
        """
        if nr_frames > MAX_FRAMES:
            raise XenError(Errno.EINVAL, f"a grant table of {nr_frames} frames; at most 64")
        table = self.tables.get(dom.domid) or GrantTable(dom.domid)
        missing = max(nr_frames, INITIAL_FRAMES) - len(table.frames)
        if missing > 0:
            for mfn in self._frames.allocate(dom.domid, missing):
                self._frames.lend(mfn)
                table.frames.append(mfn)
        self.tables[dom.domid] = table
        return table

    def release(self, domid: int) -> None:
        """Give the table's frames back."""
        if table := self.tables.pop(domid, None):
            for mfn in table.frames:
                self._frames.take_back(mfn)
