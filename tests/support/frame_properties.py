"""What must hold of a frame table and of what lies in its frames, said without counts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hypervisor.abi.width import Width
from hypervisor.mm.frames import OWNER_FREE, FrameTable, FrameType
from hypervisor.mm.pagetables import PageTables

Mapping = tuple[int, int, bool]  # domain, frame, writable
Unchanged = tuple[Any, ...]

_P: Final = 1
_RW: Final = 2
_FRAME: Final = 0x000F_FFFF_FFFF_F000
_TABLES: Final = frozenset(FrameType) - {FrameType.NONE, FrameType.WRITABLE}

#: Bits that Xen forces in entries that it looks at, though it may then refuse the table (adjust_*).
_FORCED: Final = {
    Width.X86_32: 0,
    Width.X86_32P: 0b110,  # US and RW, of L3 entries
    Width.X86_64: 1 << 52 | 1 << 8 | 1 << 2,  # kernel's, global, US
}


def state(frames: FrameTable, width: Width) -> Unchanged:
    """All that a refusal must leave as it is: memory, owners, counts, marks, what is free."""
    dtype = np.uint32 if width is Width.X86_32 else np.uint64
    words: npt.NDArray[Any] = np.frombuffer(frames.memory.view, dtype=dtype)
    return (
        (words & ~dtype(_FORCED[width])).tobytes(),
        frames.owner.tobytes(),
        frames.type_count.tobytes(),
        frames.ref_count.tobytes(),
        [kind if count else 0 for kind, count in zip(frames.type, frames.type_count, strict=True)],
        bytes(frames.flags),
        frames.free_list(),
    )


def mappings(domains: Iterable[PageTables]) -> dict[tuple[int, int], Mapping]:
    """What each present leaf of a table in use maps, by the leaf's table and slot."""
    found: dict[tuple[int, int], Mapping] = {}
    for tables in domains:
        frames = tables.frames
        dtype: Any = np.uint32 if tables.mode.entry_bytes == 4 else np.uint64
        for table in frames.owned_by(tables.domid):
            if frames.type[table] != FrameType.L1 or not frames.type_count[table]:
                continue
            words: npt.NDArray[Any] = np.frombuffer(frames.memory.frame(table), dtype=dtype)
            for slot in np.flatnonzero(words & dtype(_P)).tolist():
                entry = int(words[slot])
                found[table, slot] = tables.domid, (entry & _FRAME) >> 12, bool(entry & _RW)
    return found


class StaleTranslations:
    """A TLB that keeps everything until it is flushed: what could still be used, and must not hurt.

    A translation is stale when the leaf it came from maps that frame no more, or not writable any
    more. While there may be one, its frame must not become a table that a stale store could change,
    nor somebody else's.
    """

    def __init__(self, frames: FrameTable) -> None:
        self._frames = frames
        self._writable: dict[int, int] = {}  # frame to who had it mapped
        self._any: dict[int, int] = {}
        self._before: dict[tuple[int, int], Mapping] = {}
        frames.flush_needed = self.flush

    def flush(self) -> None:
        """As a CPU does when it is asked to."""
        self._writable.clear()
        self._any.clear()
        self._frames.flushed()

    def look(self, domains: Iterable[PageTables]) -> None:
        """After an operation: is anything stale that hurts, and what is stale from now on."""
        frames = self._frames
        for mfn in self._writable:
            is_table = frames.type_count[mfn] and frames.type[mfn] in _TABLES
            assert not is_table, f"a stale store can change {frames.describe(mfn)}"
        for mfn, domid in self._any.items():
            owner = frames.owner[mfn]
            assert owner in (domid, OWNER_FREE) or self._is_shared(mfn, domid), (
                f"d{domid} can still see {frames.describe(mfn)}"
            )
        now = mappings(domains)
        for place, (domid, mfn, writable) in self._before.items():
            if now.get(place) != (domid, mfn, writable):
                self._any[mfn] = domid
                if writable:
                    self._writable[mfn] = domid
        self._before = now

    def _is_shared(self, mfn: int, domid: int) -> bool:
        """It was another's already when the translation was made, by privilege."""
        return domid == PRIVILEGED and self._frames.owner[mfn] != OWNER_FREE


PRIVILEGED: Final = 1  # the domain that may map others' frames


def check_descriptors(frames: FrameTable, width_of: dict[int, Width]) -> None:
    """No descriptor in use reaches ring 0 (SDM 3A 3.4.5, 5.8.3)."""
    mfn = -1
    while (mfn := frames.type.find(FrameType.SEGDESC, mfn + 1)) >= 0:
        if not frames.type_count[mfn]:
            continue
        ring = 3 if width_of[frames.owner[mfn]].is_64 else 1
        for desc in memoryview(frames.memory.frame(mfn)).cast("Q"):
            if desc >> 47 & 1:
                _check_descriptor(desc, ring)


def _check_descriptor(desc: int, ring: int) -> None:
    dpl, is_segment, kind = desc >> 45 & 3, desc >> 44 & 1, desc >> 40 & 0xF
    if is_segment or kind == 0:
        assert dpl >= ring, f"descriptor {desc:#018x} has DPL {dpl}"
        return
    assert kind == 0xC, f"descriptor {desc:#018x} is a system segment"
    assert dpl == 0, f"call gate {desc:#018x} can be used without Xen"
    assert desc >> 16 & 3 >= ring, f"call gate {desc:#018x} leads to ring {desc >> 16 & 3}"


def owners_seen_by(domid: int, domids: Collection[int]) -> Collection[int]:
    """Whose frames a domain may reach."""
    return domids if domid == PRIVILEGED else (domid,)
