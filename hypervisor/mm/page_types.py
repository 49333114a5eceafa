"""Promotion and demotion: how a frame gets a type, keeps it, and loses it.

This is the heart of direct paging. Each use of a frame that needs it to stay what it is holds a
*type reference*: a writable mapping needs it to be ordinary memory, an entry of a table needs the
table below to be one, a pin or a base pointer needs a table to stay one. The invariant:

    1. a frame has one type while its type count is above zero, and
    2. a frame is VALIDATED exactly while its type is a table's (or SEGDESC) and its count is above
       zero: then every entry of it has been checked, and holds what it names.

So a page table has no writable mapping, hence no entry of it changes behind the VMM's back, hence
what was checked stays true. *Promotion* is the first type reference: the frame gets its type, its
entries are checked, and each takes references on what it names. *Demotion* is the last: the entries
give theirs back, and then the frame may become something else. (_get_page_type and _put_page_type
in Xen's arch/x86/mm.c.)

Removing the last writable mapping does not remove it from the TLB. A frame that was WRITABLE and
lost a mapping since the last flush is therefore flushed for before it becomes a table
(`FrameTable.settle`); no other change of type needs that, because a stale translation can do no
harm but write.

Promotion and demotion can mean work on every table below, so both can stop half way, between
tables, when a hypercall has used up its `budget`: validating raises OutOfBudget, and the tables
done so far stay held in `kept` until the same operation has been tried again; giving back leaves
the rest in `doomed`, for `reap`. So no table is ever half validated. (Xen keeps its progress in the
tables instead, as PGT_partial, and in old_guest_table.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, TypeVarTuple

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.mm.entries import LEVEL_OF
from hypervisor.mm.frames import PINNED, VALIDATED, VALIDATED_TYPES, FrameTable, FrameType

_Args = TypeVarTuple("_Args")
UNLIMITED: Final = sys.maxsize
_WRITABLE: Final = int(FrameType.WRITABLE)


class OutOfBudget(Exception):
    """The budget is used up; nothing has changed but `kept`. To be tried again, not a refusal."""


class PageTypes:
    """The types of one domain's frames. What a table's entries mean is for `PageTables`."""

    def __init__(self, frames: FrameTable, domid: int) -> None:
        self.frames = frames
        self.domid = domid
        self.budget = UNLIMITED  # entries that may still be looked at before OutOfBudget
        self.kept: dict[int, list[int]] = {}  # tables held for a retry, by who will retry
        self.doomed: list[int] = []  # tables whose references are still to be given back
        self._keep: list[int] = []  # being collected while OutOfBudget unwinds

    def _validate(self, mfn: int, kind: FrameType) -> None:
        """Take the references of all entries, or of none. Raises XenError, OutOfBudget."""
        raise NotImplementedError

    def _invalidate(self, mfn: int, kind: FrameType) -> None:
        """Give back the references of all entries."""
        raise NotImplementedError

    # --- promotion and demotion ------------------------------------------------------------
    def get_page_type(self, mfn: int, want: FrameType) -> None:
        """Hold one more type reference on `mfn`, its contents validated as `want`.

        Raises XenError if it is in use as another type, or if an entry is refused; nothing has
        changed then.
        """
        frames = self.frames
        if frames.type_count[mfn]:
            if frames.type[mfn] != want:
                self._refuse_type(mfn, want)
            frames.type_count[mfn] += 1
            return
        before = frames.type[mfn]
        if before != want:
            if before == _WRITABLE:
                frames.settle(mfn)
            frames.type[mfn] = want
        frames.type_count[mfn] = 1  # from here on nothing met while validating can retype it
        if want in VALIDATED_TYPES:
            try:
                self._validate(mfn, want)
            except (XenError, OutOfBudget):
                frames.type_count[mfn] = 0
                frames.type[mfn] = before
                raise
            frames.flags[mfn] |= VALIDATED

    def _refuse_type(self, mfn: int, want: FrameType) -> None:
        raise XenError(Errno.EINVAL, f"{self.frames.describe(mfn)}; not usable as {want.name}")

    def put_page_type(self, mfn: int) -> None:
        """Drop one type reference; the last one releases what the contents hold."""
        frames = self.frames
        count = frames.type_count[mfn] - 1
        assert count >= 0, f"mfn {mfn:#x}: type count underflow"
        if count == 0:
            frames.stamp[mfn] = frames.epoch
            if frames.flags[mfn] & VALIDATED:
                frames.flags[mfn] &= ~VALIDATED
                self._invalidate(mfn, FrameType(frames.type[mfn]))
        frames.type_count[mfn] = count

    def get_page_and_type(self, mfn: int, want: FrameType) -> None:
        """Hold a general and a type reference on a frame of this domain."""
        self.frames.get_page(mfn, self.domid)
        try:
            self.get_page_type(mfn, want)
        except (XenError, OutOfBudget):
            self.frames.put_page(mfn)
            raise

    def put_page_and_type(self, mfn: int) -> None:
        """The opposite of get_page_and_type."""
        self.put_page_type(mfn)
        self.frames.put_page(mfn)

    def entry_type(self, mfn: int) -> FrameType:
        """The table type that `mfn` is held as; NONE when it is no table at the moment."""
        if self.frames.type_count[mfn] == 0:
            return FrameType.NONE
        kind = FrameType(self.frames.type[mfn])
        return kind if kind in LEVEL_OF else FrameType.NONE

    # --- pins --------------------------------------------------------------------------------
    def pin(self, mfn: int, want: FrameType) -> None:
        """Keep `mfn` validated as `want` until `unpin` (MMUEXT_PIN_L*_TABLE)."""
        self.get_page_and_type(mfn, want)
        if self.frames.flags[mfn] & PINNED:
            self.put_page_and_type(mfn)
            raise XenError(Errno.EINVAL, f"{self.frames.describe(mfn)}; pinned already")
        self.frames.flags[mfn] |= PINNED

    def unpin(self, mfn: int) -> None:
        """Give up a pin (MMUEXT_UNPIN_TABLE)."""
        frames = self.frames
        if mfn >= frames.nr_frames or frames.owner[mfn] != self.domid:
            raise XenError(Errno.EINVAL, f"mfn {mfn:#x} {frames.whose(mfn)}, not d{self.domid}'s")
        if not frames.flags[mfn] & PINNED:
            raise XenError(Errno.EINVAL, f"{frames.describe(mfn)}; not pinned")
        frames.flags[mfn] &= ~PINNED
        self.put_page_and_type(mfn)

    # --- work in pieces ----------------------------------------------------------------------
    def retryable(self, who: int, operation: Callable[[*_Args], None], *args: *_Args) -> None:
        """Do `operation`; if it is OutOfBudget, what it validated stays held for `who` tries again.

        What was kept from the time before is let go after the new attempt, which therefore found
        it validated.
        """
        before = self.kept.pop(who, [])
        self._keep = []
        try:
            operation(*args)
        except OutOfBudget:
            self.kept[who] = self._keep
            raise
        finally:
            self.doomed += before
            if before:
                self.reap()

    def reap(self) -> bool:
        """Give back what is doomed as far as the budget goes; True when nothing is left."""
        while self.doomed and self.budget > 0:
            self.budget -= 1
            self.put_page_and_type(self.doomed.pop())
        return not self.doomed

    def abandon(self) -> None:
        """Nobody will try anything again: the domain ends."""
        for held in self.kept.values():
            self.doomed += held
        self.kept.clear()
        self.budget = UNLIMITED
        self.reap()
