"""Many leaves at once: what `LeafTables` does entry by entry, done with array operations.

Two things here are worth it: a whole leaf table when it becomes one or stops being one, and a long
batch of updates. Each gives, bit for bit, what the loop gives: the same entries, counts, types and
flush epochs. Where that cannot be had at a stroke (an entry is refused, a frame would be freed) the
function says that it has done nothing, or only the updates before, and the loop does the rest, with
its exact order and its exact error. What makes this possible is that leaves change little: they
turn frames of no type into WRITABLE ones, and count.

The views lie over the frame table's own columns. numpy takes as long to import as a hundred
thousand entries take one by one, so it is imported when it begins to pay (LeafTables.bulk).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from hypervisor.abi.width import Width
from hypervisor.mm.entries import CHEAP_BITS, PTE_GUEST_KERNEL
from hypervisor.mm.frames import MAX_COUNT, FrameType
from hypervisor.x86.paging import PAGE_SHIFT, PAGE_SIZE, PTE_FRAME, PTE_G, PTE_P, PTE_RW, PTE_US

if TYPE_CHECKING:
    from hypervisor.mm.leaf_tables import LeafTables

Words = npt.NDArray[Any]

_L1: Final = int(FrameType.L1)
_WRITABLE: Final = int(FrameType.WRITABLE)
_SHIFT: Final = np.uint64(PAGE_SHIFT)
_FRAME: Final = np.uint64(PTE_FRAME)
_P: Final = np.uint64(PTE_P)
_RW: Final = np.uint64(PTE_RW)
_US: Final = np.uint64(PTE_US)
_G: Final = np.uint64(PTE_G)
_GUEST_KERNEL: Final = np.uint64(PTE_GUEST_KERNEL)
_DEAR: Final = np.uint64(~CHEAP_BITS & (1 << 64) - 1)


class Bulk:
    """One domain's leaves."""

    def __init__(self, tables: LeafTables) -> None:
        frames = tables.frames
        self._tables = tables
        self._frames = frames
        self._owner = np.frombuffer(frames.owner, dtype=np.uint16)
        self._type = np.frombuffer(frames.type, dtype=np.uint8)
        self._type_count = np.frombuffer(frames.type_count, dtype=np.uint32)
        self._ref_count = np.frombuffer(frames.ref_count, dtype=np.uint32)
        self._stamp = np.frombuffer(frames.stamp, dtype=np.uint64)
        self._code_frames = np.frombuffer(frames.code_frames, dtype=np.uint8)
        size = tables.mode.entry_bytes
        self._shift = tables.mode.entry_shift
        self._nr = tables.mode.slots[1]
        self._words: Words = np.frombuffer(
            frames.memory.buffer, dtype=np.uint32 if size == 4 else np.uint64
        )
        self._disallowed = np.uint64(tables.disallowed[1])
        self._is_64 = tables.width is Width.X86_64

    # --- whole tables --------------------------------------------------------------------------
    def validate(self, mfn: int) -> bool:
        """Take the references of all leaves; False, and nothing done, if one is refused."""
        slots, entries = self._present(mfn)
        targets = self._targets(entries)
        if (entries & self._disallowed).any() or self._is_refused(entries, targets).any():
            return False
        self._get(entries, targets)
        if self._is_64:
            first = mfn << PAGE_SHIFT >> self._shift
            self._words[first + slots] = self._adjusted(entries)
        return True

    def invalidate(self, mfn: int) -> bool:
        """Give them back; False, and nothing done, if that frees a frame."""
        _, entries = self._present(mfn)
        return self._put(entries, self._targets(entries))

    def _present(self, mfn: int) -> tuple[Words, Words]:
        first = mfn << PAGE_SHIFT >> self._shift
        entries = self._words[first : first + self._nr].astype(np.uint64)
        slots = np.flatnonzero(entries & _P)
        return slots, entries[slots]

    # --- batches of updates --------------------------------------------------------------------
    def update(self, maddrs: Words, new: Words, keep: Words, owner: int) -> int:
        """`update_leaf` for each of the entries at `maddrs`, in order; how many were done.

        Stops in front of the first that is no leaf of the domain's, or is refused. `keep` says
        which bits of the old entry stay.
        """
        count = self._leading(self._is_leaf(maddrs))
        if count == 0:
            return 0
        idx = (maddrs[:count] >> np.uint64(self._shift)).astype(np.int64)
        new, keep = new[:count], keep[:count]
        stored = np.where(new & _P, self._adjusted(new), new)
        old, last = self._old(idx, stored, keep)
        stays = (old & _P != 0) & (new & _P != 0) & ((old ^ new) & _DEAR == 0)
        gets = (new & _P != 0) & ~stays
        puts = (old & _P != 0) & ~stays
        targets = self._targets(new)
        refused = (new & _P != 0) & (new & self._disallowed != 0)
        refused |= gets & self._is_refused(new, targets, owner)
        done = self._leading(~refused)
        if done < count:
            # what later ones do to the same entries must not be seen
            return self.update(maddrs[:done], new[:done], keep[:done], owner) if done else 0
        if (self._ref_count[targets[gets]] > MAX_COUNT - count).any():
            return 0
        # Before the new ones are taken: what a later update names may be gone by then
        if not self._put(old[puts], self._targets(old[puts])):
            return 0
        self._get(new[gets], targets[gets])
        self._words[idx[last]] = (stored | old & keep)[last]
        written = (maddrs[:count] >> _SHIFT).astype(np.int64)
        for mfn in np.unique(written[self._code_frames[written] != 0]).tolist():
            self._frames.code_written(mfn << PAGE_SHIFT, PAGE_SIZE)
        return count

    def _old(self, idx: Words, stored: Words, keep: Words) -> tuple[Words, Words]:
        """What each update finds in its entry, and which of them are the last on theirs."""
        old = self._words[idx].astype(np.uint64)
        order = np.argsort(idx, kind="stable")
        is_again = np.zeros(len(idx), dtype=bool)
        is_again[1:] = idx[order][1:] == idx[order][:-1]
        last = np.ones(len(idx), dtype=bool)
        if is_again.any():
            again = np.flatnonzero(is_again)
            last[order[again - 1]] = False
            for at in again.tolist():  # in order: each finds what the one before it left
                now, before = order[at], order[at - 1]
                old[now] = stored[before] | old[before] & keep[before]
        return old, np.flatnonzero(last)

    def _is_leaf(self, maddrs: Words) -> Words:
        """Whether each lies in a validated leaf table of the domain's."""
        mfns = maddrs >> _SHIFT
        is_inside = mfns < self._frames.nr_frames
        known = np.where(is_inside, mfns, 0).astype(np.int64)
        is_table = (self._type[known] == _L1) & (self._type_count[known] != 0)
        found: Words = is_inside & is_table & (self._owner[known] == self._tables.domid)
        return found

    @staticmethod
    def _leading(flags: Words) -> int:
        """How many are true before the first that is not."""
        return len(flags) if flags.all() else int(np.argmin(flags))

    # --- references ----------------------------------------------------------------------------
    @staticmethod
    def _targets(entries: Words) -> Words:
        return ((entries & _FRAME) >> _SHIFT).astype(np.int64)

    def _is_refused(self, entries: Words, targets: Words, owner: int | None = None) -> Words:
        """Whether `_get_leaf` would refuse each. Types that are in use do not change meanwhile."""
        if owner is None:
            owner = self._tables.domid
        is_inside = targets < self._frames.nr_frames
        known = np.where(is_inside, targets, 0)
        is_other = (self._type_count[known] != 0) & (self._type[known] != _WRITABLE)
        refused: Words = ~is_inside | (self._owner[known] != owner)
        refused |= (entries & _RW != 0) & is_other
        return refused

    def _get(self, entries: Words, targets: Words) -> None:
        writable = targets[entries & _RW != 0]
        self._type[writable] = _WRITABLE
        np.add.at(self._type_count, writable, 1)
        np.add.at(self._ref_count, targets, 1)

    def _put(self, entries: Words, targets: Words) -> bool:
        """Give back; False, and nothing done, if that frees a frame, be it for a moment."""
        np.subtract.at(self._ref_count, targets, 1)
        if (self._ref_count[targets].view(np.int32) <= 0).any():  # or below: see `update`
            np.add.at(self._ref_count, targets, 1)
            return False
        self._stamp[targets] = self._frames.epoch
        np.subtract.at(self._type_count, targets[entries & _RW != 0], 1)
        return True

    def _adjusted(self, entries: Words) -> Words:
        """As `entries.adjusted` does for leaves."""
        if not self._is_64:
            return entries
        is_user = entries & _US != 0
        is_kernels = entries & _GUEST_KERNEL != 0
        forced: Words = np.where(
            is_user, np.where(is_kernels, np.uint64(0), _G), _US | _GUEST_KERNEL
        )
        return np.bitwise_or(entries, forced)
