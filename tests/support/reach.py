"""Where the MMU can get from a root, by the manuals alone, and whether the walker may be there.

Independent of how the VMM thinks of tables: what an entry of a table means depends only on the
level at which a walk comes to it, so a linear entry is nothing special here. Of what a walk ends
at, its frame and whether it can be written is all that counts (SDM 3A 4.3 to 4.6).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hypervisor.control.host import Host
from hypervisor.domain.domain import Domain
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.frames import FrameTable, FrameType
from hypervisor.mm.pagetables import PageTables

_P: Final = 1
_RW: Final = 2
_PSE: Final = 0x80
_FRAME: Final = 0x000F_FFFF_FFFF_F000
#: The top-level slots that are Xen's, by number of levels; PAE's are in the L2 that L3[3] names.
_XENS: Final = {2: range(1008, 1024), 3: range(0), 4: range(256, 272)}
_PAE_XENS: Final = range(428, 512)

Reached = dict[
    tuple[int, bool], tuple[int, ...]
]  # (mfn, writable) to one way there: mfn, slot, ...


class Walker:
    """Walks from roots of one paging mode."""

    def __init__(self, memory: MachineMemory, levels: int) -> None:
        self._levels = levels
        self._dtype: Any = np.uint32 if levels == 2 else np.uint64
        self._memory = memory
        self.guests: Reached = {}  # what the guest's own entries lead to
        self.xens: Reached = {}  # what Xen's slots lead to
        self.xens_tables: set[int] = set()  # and through which tables
        self._seen: set[tuple[int, int, bool, range, bool]] = set()

    def walk(self, root: int) -> None:
        """All of an address space."""
        xens = _XENS[self._levels]
        self._table(root, self._levels, (root,), writable=True, xens=xens, is_xens=False)

    def _table(
        self,
        mfn: int,
        level: int,
        path: tuple[int, ...],
        *,
        writable: bool,
        xens: range,
        is_xens: bool,
    ) -> None:
        """A table met at `level`; of its slots `xens` are Xen's."""
        key = (mfn, level, writable, xens, is_xens)
        if key in self._seen:
            return
        self._seen.add(key)
        if is_xens:
            self.xens_tables.add(mfn)
        words: npt.NDArray[Any] = np.frombuffer(self._memory.frame(mfn), dtype=self._dtype)
        is_pae_root = self._levels == 3 and level == 3
        if is_pae_root:
            words = words[:4]
        for slot in np.flatnonzero(words & _P).tolist():
            entry = int(words[slot])
            target = (entry & _FRAME) >> 12
            way = (*path, slot, target)
            assert target << 12 < self._memory.size_bytes, f"{way} leads out of memory"
            can_write = writable and (is_pae_root or bool(entry & _RW))
            is_below_xens = is_xens or slot in xens
            if level == 1:
                found = self.xens if is_below_xens else self.guests
                found.setdefault((target, can_write), way)
                continue
            assert is_pae_root or not entry & _PSE, f"{way}: a superpage"
            below = _PAE_XENS if is_pae_root and slot == 3 else range(0)
            self._table(
                target, level - 1, way, writable=can_write, xens=below, is_xens=is_below_xens
            )


def check_reach(host: Host, dom: Domain, owners: Collection[int]) -> None:
    """From no root can `dom` read a frame but `owners`' and what Xen shows, nor write a table."""
    check_frames(host.frames, dom.page_tables, owners)


def check_frames(frames: FrameTable, tables: PageTables, owners: Collection[int]) -> None:
    """The same for page tables without a domain around them."""
    walker = Walker(frames.memory, tables.mode.levels)
    who = f"d{tables.domid}"
    for mfn in frames.owned_by(tables.domid):
        if frames.type_count[mfn] and frames.type[mfn] == tables.root_type:
            walker.walk(mfn)
    shown = {mfn for mfn, _ in walker.xens} | walker.xens_tables
    for (mfn, writable), way in walker.xens.items():
        assert not writable, f"{who} writes Xen's mfn {mfn:#x} by {way}"
    for (mfn, writable), way in walker.guests.items():
        is_its = frames.owner[mfn] in owners or (mfn in shown and not writable)
        assert is_its, f"{who} reaches {frames.describe(mfn)} by {way}"
        is_plain = frames.type[mfn] == FrameType.WRITABLE and frames.type_count[mfn]
        assert not writable or is_plain, f"{who} writes {frames.describe(mfn)} by {way}"
