"""Direct paging: the guest's own tables are what the MMU walks, so every entry is checked first.

A table is *validated* when its first type reference is taken: each present entry takes a reference
on the frame it names (and a type reference: WRITABLE for a writable leaf, the next lower table type
above). While a table is validated no entry of it changes but through `update_entry`, because no
writable mapping of it can exist. When the last type reference goes, all entries give theirs back.

Both can mean work on every table below, so both can stop half way, between tables, when a
hypercall has used up its `budget`: validating raises OutOfBudget, and the tables done so far
stay held in `kept` until the same operation has been tried again; giving back leaves the rest in
`doomed`, for `reap`. So no table is ever half validated. (Xen keeps its progress in the tables
instead, as PGT_partial, and in old_guest_table.)

Rules and error numbers are those of Xen 4.17's arch/x86/mm.c (get_page_from_l1e, promote_l2_table,
mod_l1_entry and neighbours). Not here yet: linear page tables.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVarTuple

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.mm.descriptors import check_page
from hypervisor.mm.entries import (
    DISALLOWED,
    INVALID_PTE_MFN,
    LEVEL_OF,
    PAGING_MODE,
    TYPE_OF_LEVEL,
    adjusted,
    same_references,
)
from hypervisor.mm.frames import (
    PINNED,
    VALIDATED,
    VALIDATED_TYPES,
    FrameTable,
    FrameType,
)
from hypervisor.x86.paging import (
    PAE,
    PAGE_SHIFT,
    PTE_A,
    PTE_D,
    PTE_FRAME,
    PTE_P,
    PTE_RW,
    PagingMode,
)

_Args = TypeVarTuple("_Args")
UNLIMITED: Final = sys.maxsize
_PAE_XEN_SLOT: Final = 3  # of a PAE L3: names the L2 with Xen's slots
_MFN_4GIB: Final = 1 << 20


class OutOfBudget(Exception):
    """The budget is used up; nothing has changed but `kept`. To be tried again, not a refusal."""


@dataclass(frozen=True, slots=True)
class XenSlots:
    """What Xen puts into the slots of a table that it keeps for itself."""

    table: FrameType  # the type of table that holds them
    first: int
    end: int
    entries: bytes  # raw, for slots [first, end)


class PageTables:
    """One domain's page tables: validates, changes and releases them."""

    def __init__(self, frames: FrameTable, width: Width, domid: int, xen_slots: XenSlots) -> None:
        self.frames = frames
        self.width = width
        self.domid = domid
        self.mode: PagingMode = PAGING_MODE[width]
        self.xen_slots = xen_slots
        self.disallowed = DISALLOWED[width]
        self.budget = UNLIMITED  # entries that may still be looked at before OutOfBudget
        self.kept: dict[int, list[int]] = {}  # tables held for a retry, by who will retry
        self.doomed: list[int] = []  # tables whose references are still to be given back
        self._keep: list[int] = []  # being collected while OutOfBudget unwinds
        memory = frames.memory
        self._words = memory.u32 if self.mode.entry_bytes == 4 else memory.u64
        self._shift = self.mode.entry_shift

    @property
    def root_type(self) -> FrameType:
        """The type of a top-level table."""
        return TYPE_OF_LEVEL[self.mode.levels]

    # --- types -------------------------------------------------------------------
    def get_page_type(self, mfn: int, want: FrameType) -> None:
        """Hold one more type reference on `mfn`, its contents validated as `want`.

        Raises XenError if it is in use as another type, or if an entry is refused; nothing has
        changed then.
        """
        frames = self.frames
        if frames.type_count[mfn]:
            if frames.type[mfn] != want:
                raise XenError(Errno.EINVAL, f"{frames.describe(mfn)}; not usable as {want.name}")
            frames.type_count[mfn] += 1
            return
        before = frames.type[mfn]
        if before != want:
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

    # --- work in pieces --------------------------------------------------------------
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

    # --- pins --------------------------------------------------------------------
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

    # --- entries -----------------------------------------------------------------
    def entry_type(self, mfn: int) -> FrameType:
        """The table type that `mfn` is held as; NONE when it is no table at the moment."""
        if self.frames.type_count[mfn] == 0:
            return FrameType.NONE
        kind = FrameType(self.frames.type[mfn])
        return kind if kind in LEVEL_OF else FrameType.NONE

    def read_entry(self, maddr: int) -> int:
        """The entry at a machine address."""
        return self._words[maddr >> self._shift]

    def update_entry(
        self, maddr: int, new: int, *, preserve_ad: bool = False, owner: int | None = None
    ) -> None:
        """Change one entry of a validated table of this domain.

        `owner` is whose frames a leaf may name: this domain's unless privilege says otherwise.
        Raises XenError and changes nothing if the new entry is refused.
        """
        mfn = maddr >> PAGE_SHIFT
        kind = FrameType(self.frames.type[mfn])
        level = LEVEL_OF[kind]
        slot = (maddr & 0xFFF) >> self._shift
        if level > 1:
            self._refuse_private_slot(kind, slot)
        words = self._words
        idx = maddr >> self._shift
        old = words[idx]
        if new & PTE_P:
            new = self._changed(level, slot, old, new, self.domid if owner is None else owner)
        if preserve_ad:
            new |= words[idx] & (PTE_A | PTE_D)
        words[idx] = new
        if old & PTE_P and not (new & PTE_P and same_references(level, old, new)):
            self._put_entry(level, old)

    def _changed(self, level: int, slot: int, old: int, new: int, owner: int) -> int:
        """`new`, checked, with references taken where it differs from `old`, and fixed up."""
        if new & self.disallowed[level]:
            raise XenError(
                Errno.EINVAL,
                f"l{level}e {new:#x}: bits {new & self.disallowed[level]:#x} are not allowed",
            )
        if not (old & PTE_P and same_references(level, old, new)):
            self._get_entry(level, slot, new, owner)
        return adjusted(self.width, level, new)

    def _refuse_private_slot(self, kind: FrameType, slot: int) -> None:
        xen = self.xen_slots
        if kind == xen.table and xen.first <= slot < xen.end:
            errno = Errno.EPERM if LEVEL_OF[kind] == 2 else Errno.EINVAL
            raise XenError(errno, f"slot {slot} of an {kind.name} table is Xen's")
        if kind == FrameType.L3 and self.mode is PAE and slot >= _PAE_XEN_SLOT:
            raise XenError(Errno.EINVAL, f"slot {slot} of a PAE L3 table cannot change")

    def _get_entry(self, level: int, slot: int, entry: int, owner: int) -> None:
        """Take the references of a present, allowed entry."""
        mfn = (entry & PTE_FRAME) >> PAGE_SHIFT
        if level == 1:
            self._get_leaf(mfn, entry, owner)
        elif level == 3 and slot == _PAE_XEN_SLOT and self.mode is PAE:
            self._get_xen_l2(mfn)
        else:
            self.get_page_and_type(mfn, TYPE_OF_LEVEL[level - 1])

    def _get_leaf(self, mfn: int, entry: int, owner: int) -> None:
        """Take the references of a leaf (get_page_from_l1e)."""
        frames = self.frames
        if mfn >= frames.nr_frames:  # would be a device's
            errno = Errno.EINVAL if mfn == INVALID_PTE_MFN else Errno.EPERM
            raise XenError(errno, f"mfn {mfn:#x} {frames.whose(mfn)}")
        if frames.owner[mfn] != owner:
            raise XenError(Errno.EBUSY, f"mfn {mfn:#x} {frames.whose(mfn)}, not d{owner}'s")
        frames.get_page(mfn, owner)
        if entry & PTE_RW:
            try:
                self.get_page_type(mfn, FrameType.WRITABLE)
            except XenError as refusal:
                frames.put_page(mfn)
                raise XenError(Errno.EBUSY, f"{refusal.why}; cannot map it writable") from None

    def _get_xen_l2(self, mfn: int) -> None:
        """The L2 that holds Xen's slots belongs to one L3 alone (pae_xen_mappings_check)."""
        self.get_page_and_type(mfn, FrameType.XEN_L2)
        if self.frames.type_count[mfn] != 1:
            self.put_page_and_type(mfn)
            raise XenError(Errno.EINVAL, f"mfn {mfn:#x} is slot 3 of another L3 table already")

    def _put_entry(self, level: int, entry: int) -> None:
        """Give back what a present entry held."""
        mfn = (entry & PTE_FRAME) >> PAGE_SHIFT
        if level > 1:
            if self.budget > 0:
                self.put_page_and_type(mfn)
            else:
                self.doomed.append(mfn)
            return
        self.frames.stamp[mfn] = self.frames.epoch
        if entry & PTE_RW:
            self.put_page_type(mfn)
        self.frames.put_page(mfn)

    # --- whole tables --------------------------------------------------------------
    def _present(self, mfn: int, kind: FrameType) -> list[tuple[int, int]]:
        """The guest's slots of a table that are present, with their entries; charges the budget."""
        nr = self.mode.slots[LEVEL_OF[kind]]
        self.budget -= nr
        first = mfn << PAGE_SHIFT >> self._shift
        found = [
            (slot, entry)
            for slot, entry in enumerate(self._words[first : first + nr].tolist())
            if entry & PTE_P
        ]
        xen = self.xen_slots
        if kind == xen.table:
            found = [(slot, entry) for slot, entry in found if not xen.first <= slot < xen.end]
        return found

    def _validate(self, mfn: int, kind: FrameType) -> None:
        """Take the references of all entries, or of none."""
        if kind == FrameType.SEGDESC:
            check_page(self.frames.memory, self.width, mfn)
            return
        level = LEVEL_OF[kind]
        words = self._words
        first = mfn << PAGE_SHIFT >> self._shift
        entries = self._present(mfn, kind)
        if level == 3 and self.mode is PAE:
            self._check_pae_l3(mfn, entries)
        done = 0
        try:
            for slot, entry in entries:
                if level > 1 and self.budget <= 0:
                    raise OutOfBudget
                words[first + slot] = self._changed(level, slot, 0, entry, self.domid)
                done += 1
        except XenError:
            for _, entry in entries[:done]:
                self._put_entry(level, entry)
            raise
        except OutOfBudget:
            self._keep += [(entry & PTE_FRAME) >> PAGE_SHIFT for _, entry in entries[:done]]
            raise
        self._fill_xen_slots(mfn, kind)

    def _check_pae_l3(self, mfn: int, entries: list[tuple[int, int]]) -> None:
        """CR3 has 32 bits there, and slot 3 leads to Xen's region (promote_l3_table)."""
        if mfn >= _MFN_4GIB:
            raise XenError(Errno.ERANGE, f"mfn {mfn:#x}: a PAE L3 table must lie below 4 GiB")
        if all(slot != _PAE_XEN_SLOT for slot, _ in entries):
            raise XenError(Errno.EINVAL, f"mfn {mfn:#x}: L3[3] must be present")

    def _fill_xen_slots(self, mfn: int, kind: FrameType) -> None:
        frame = self.frames.memory.frame(mfn)
        size = self.mode.entry_bytes
        if kind == self.xen_slots.table:
            frame[self.xen_slots.first * size : self.xen_slots.end * size] = self.xen_slots.entries
        if kind == FrameType.L3 and self.mode is PAE:
            frame[4 * size :] = bytes(len(frame) - 4 * size)

    def _invalidate(self, mfn: int, kind: FrameType) -> None:
        """Give back the references of all entries."""
        if kind == FrameType.SEGDESC:
            return
        level = LEVEL_OF[kind]
        for _, entry in self._present(mfn, kind):
            self._put_entry(level, entry)
