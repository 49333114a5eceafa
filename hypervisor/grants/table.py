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


@dataclass(slots=True)
class GrantTable:
    """The frames of one domain's table, and the version of its entries."""

    domid: int
    frames: list[int] = field(default_factory=list)
    version: int = 1


class GrantTables:
    """All domains' tables."""

    def __init__(self, frames: FrameTable) -> None:
        self._frames = frames
        self.tables: dict[int, GrantTable] = {}

    def table(self, dom: Domain) -> GrantTable:
        """The table of `dom`, made on first use."""
        if dom.domid not in self.tables:
            self.tables[dom.domid] = GrantTable(dom.domid)
            self.grow(dom, INITIAL_FRAMES)
        return self.tables[dom.domid]

    def grow(self, dom: Domain, nr_frames: int) -> None:
        """Let the table have at least `nr_frames` frames."""
        if nr_frames > MAX_FRAMES:
            raise XenError(Errno.EINVAL, f"a grant table of {nr_frames} frames; at most 64")
        table = self.tables[dom.domid]
        missing = nr_frames - len(table.frames)
        if missing > 0:
            for mfn in self._frames.allocate(dom.domid, missing):
                self._frames.lend(mfn)
                table.frames.append(mfn)

    def release(self, domid: int) -> None:
        """Give the table's frames back."""
        if table := self.tables.pop(domid, None):
            for mfn in table.frames:
                self._frames.take_back(mfn)
