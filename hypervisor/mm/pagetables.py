"""Direct paging: the guest's own tables are what the MMU walks, so every entry is checked first.

A table is *validated* when its first type reference is taken (page_types): each present entry takes
a reference on the frame it names, and a type reference: WRITABLE for a writable leaf, the next
lower table type above. While a table is validated no entry of it changes but through
`update_entry`, because no writable mapping of it can exist. When the last type reference goes, all
entries give theirs back.

Rules and error numbers are those of Xen 4.17's arch/x86/mm.c (get_page_from_l1e, promote_l2_table,
mod_l1_entry and neighbours). Where many entries are to be looked at, `bulk` does the same with
array operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.mm.descriptors import check_page
from hypervisor.mm.entries import (
    CHEAP_BITS,
    DISALLOWED,
    INVALID_PTE_MFN,
    LEVEL_OF,
    PAGING_MODE,
    TYPE_OF_LEVEL,
    adjusted,
)
from hypervisor.mm.frames import VALIDATED, FrameTable, FrameType
from hypervisor.mm.linear import LinearUses
from hypervisor.mm.page_types import UNLIMITED, OutOfBudget, PageTypes
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

__all__ = ["UNLIMITED", "OutOfBudget", "PageTables", "XenSlots"]

_PAE_XEN_SLOT: Final = 3  # of a PAE L3: names the L2 with Xen's slots
_MFN_4GIB: Final = 1 << 20
if TYPE_CHECKING:
    from hypervisor.mm.bulk import Bulk

_WORTH_BULK: Final = 64  # entries; fewer are done sooner one by one
_WORTH_NUMPY: Final = 64 * 1024  # entries done one by one before numpy is imported for the others
_L1: Final = int(FrameType.L1)
_WRITABLE: Final = int(FrameType.WRITABLE)
_ACCESSED_DIRTY: Final = PTE_A | PTE_D


@dataclass(frozen=True, slots=True)
class XenSlots:
    """What Xen puts into the slots of a table that it keeps for itself."""

    table: FrameType  # the type of table that holds them
    first: int
    end: int
    entries: bytes  # raw, for slots [first, end)


class PageTables(PageTypes):
    """One domain's page tables: validates, changes and releases them."""

    def __init__(self, frames: FrameTable, width: Width, domid: int, xen_slots: XenSlots) -> None:
        super().__init__(frames, domid)
        self.width = width
        self.mode: PagingMode = PAGING_MODE[width]
        self.xen_slots = xen_slots
        self.disallowed = DISALLOWED[width]
        self.linear = LinearUses()
        self.extended_cr3 = False  # PAE: L3 tables may lie above 4 GiB
        memory = frames.memory
        self._words = memory.u32 if self.mode.entry_bytes == 4 else memory.u64
        self._shift = self.mode.entry_shift
        self._leaf_disallowed = self.disallowed[1]
        self._is_64 = width.is_64
        self._bulk: Bulk | None = None
        self._nr_singly = 0

    @property
    def root_type(self) -> FrameType:
        """The type of a top-level table."""
        return TYPE_OF_LEVEL[self.mode.levels]

    def bulk(self, count: int) -> Bulk | None:
        """Array operations for `count` leaves, where these are the quicker way."""
        if count < _WORTH_BULK:
            return None
        if self._bulk is None:
            self._nr_singly += count
            if self._nr_singly > _WORTH_NUMPY:
                from hypervisor.mm.bulk import Bulk

                self._bulk = Bulk(self)
        return self._bulk

    # --- entries -----------------------------------------------------------------
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
        kind = self.frames.type[maddr >> PAGE_SHIFT]
        if kind == _L1:
            keep = _ACCESSED_DIRTY if preserve_ad else 0
            self.update_leaf(maddr, new, self.domid if owner is None else owner, keep)
        else:
            self._update_table_entry(maddr, FrameType(kind), new, preserve_ad=preserve_ad)

    def update_leaf(self, maddr: int, new: int, owner: int, keep: int = 0) -> None:
        """The same for an entry of a leaf table (mod_l1_entry); bits of the old one in `keep` stay.

        Bits that matter to nobody but the guest change without a look at the frame.
        """
        words = self._words
        idx = maddr >> self._shift
        old = words[idx]
        if new & PTE_P:
            if new & self._leaf_disallowed:
                self._refuse_bits(1, new)
            if old & PTE_P and not (old ^ new) & ~CHEAP_BITS:
                words[idx] = self._adjusted_leaf(new) | old & keep
                return
            self._get_leaf(new, owner)
            new = self._adjusted_leaf(new)
        words[idx] = new | old & keep
        if old & PTE_P:
            self._put_leaf(old)

    def write_entry(self, maddr: int, new: int) -> None:
        """The same for a plain store by the guest: it may name frames of its own domain only, even
        if nothing but a bit changes (ptwr_emulated_update)."""
        idx = maddr >> self._shift
        old = self._words[idx]
        if new & PTE_P:
            if new & self._leaf_disallowed:
                self._refuse_bits(1, new)
            self._get_leaf(new, self.domid)
            new = self._adjusted_leaf(new)
        self._words[idx] = new
        if old & PTE_P:
            self._put_leaf(old)

    def _update_table_entry(
        self, maddr: int, kind: FrameType, new: int, *, preserve_ad: bool
    ) -> None:
        """An entry that names a table (mod_l2_entry to mod_l4_entry)."""
        level = LEVEL_OF[kind]
        mfn = maddr >> PAGE_SHIFT
        self._refuse_private_slot(kind, (maddr & 0xFFF) >> self._shift)
        words = self._words
        idx = maddr >> self._shift
        old = words[idx]
        keeps_references = False
        if new & PTE_P:
            if new & self.disallowed[level]:
                self._refuse_bits(level, new)
            new = adjusted(self.width, level, new)
            keeps_references = bool(old & PTE_P) and not (old ^ new) & ~CHEAP_BITS
            if not keeps_references:
                self._get_table(level, mfn, new)
        if preserve_ad:
            new |= words[idx] & _ACCESSED_DIRTY
        words[idx] = new
        if old & PTE_P and not keeps_references:
            self._put_table(mfn, old)

    def _refuse_bits(self, level: int, entry: int) -> None:
        bits = entry & self.disallowed[level]
        raise XenError(Errno.EINVAL, f"l{level}e {entry:#x}: bits {bits:#x} are not allowed")

    def _refuse_private_slot(self, kind: FrameType, slot: int) -> None:
        xen = self.xen_slots
        if kind == xen.table and xen.first <= slot < xen.end:
            errno = Errno.EPERM if LEVEL_OF[kind] == 2 else Errno.EINVAL
            raise XenError(errno, f"slot {slot} of an {kind.name} table is Xen's")
        if kind == FrameType.L3 and self.mode is PAE and slot >= _PAE_XEN_SLOT:
            raise XenError(Errno.EINVAL, f"slot {slot} of a PAE L3 table cannot change")

    # --- what leaves hold ----------------------------------------------------------
    def _adjusted_leaf(self, entry: int) -> int:
        return adjusted(self.width, 1, entry) if self._is_64 else entry

    def _get_leaf(self, entry: int, owner: int) -> None:
        """Take the references of a present leaf (get_page_from_l1e)."""
        frames = self.frames
        mfn = (entry & PTE_FRAME) >> PAGE_SHIFT
        if mfn >= frames.nr_frames or frames.owner[mfn] != owner:
            self._refuse_frame(mfn, owner)
        if entry & PTE_RW:
            if frames.type[mfn] == _WRITABLE and frames.type_count[mfn]:
                frames.type_count[mfn] += 1
            else:
                self._get_writable(mfn)
        frames.ref_count[mfn] += 1

    def _get_writable(self, mfn: int) -> None:
        try:
            self.get_page_type(mfn, FrameType.WRITABLE)
        except XenError as refusal:
            raise XenError(Errno.EBUSY, f"{refusal.why}; cannot map it writable") from None

    def _refuse_frame(self, mfn: int, owner: int) -> None:
        frames = self.frames
        if mfn >= frames.nr_frames:  # would be a device's
            errno = Errno.EINVAL if mfn == INVALID_PTE_MFN else Errno.EPERM
            raise XenError(errno, f"mfn {mfn:#x} {frames.whose(mfn)}")
        raise XenError(Errno.EBUSY, f"mfn {mfn:#x} {frames.whose(mfn)}, not d{owner}'s")

    def _put_leaf(self, entry: int) -> None:
        """Give back what a present leaf held."""
        frames = self.frames
        mfn = (entry & PTE_FRAME) >> PAGE_SHIFT
        frames.stamp[mfn] = frames.epoch
        if entry & PTE_RW:
            frames.type_count[mfn] -= 1
        count = frames.ref_count[mfn] - 1
        if count:
            frames.ref_count[mfn] = count
        else:
            frames.put_page(mfn)

    # --- what entries of the levels above hold --------------------------------------
    def _get_table(self, level: int, table: int, entry: int) -> None:
        """Take the references of a present entry of `table`, which is of `level`."""
        named = (entry & PTE_FRAME) >> PAGE_SHIFT
        try:
            self.get_page_and_type(named, TYPE_OF_LEVEL[level - 1])
        except XenError as refusal:
            if refusal.errno is not Errno.EINVAL or (level == 3 and self.mode is PAE):
                raise
            if not self._get_linear(level, table, named, entry):
                raise

    def _get_linear(self, level: int, table: int, named: int, entry: int) -> bool:
        """Whether `named` is another table of the same level, or the same, and may be named."""
        frames = self.frames
        if entry & PTE_RW:
            return False
        if named == table:
            return True
        if named >= frames.nr_frames or frames.owner[named] != self.domid:
            return False
        is_same_level = LEVEL_OF.get(frames.type[named]) == level
        if not (is_same_level and frames.flags[named] & VALIDATED):
            return False
        self.linear.add(table, named)
        frames.get_page(named, self.domid)
        frames.type_count[named] += 1
        return True

    def _put_table(self, table: int, entry: int) -> None:
        """Give back what a present entry of `table` held; work that is too much is for `reap`."""
        named = (entry & PTE_FRAME) >> PAGE_SHIFT
        if named == table:
            return
        kinds = self.frames.type
        if LEVEL_OF[kinds[named]] == LEVEL_OF[kinds[table]]:
            self.linear.remove(table, named)
        if self.budget > 0:
            self.put_page_and_type(named)
        else:
            self.doomed.append(named)

    def _get_xen_l2(self, mfn: int) -> None:
        """The L2 that holds Xen's slots belongs to one L3 alone (pae_xen_mappings_check)."""
        self.get_page_and_type(mfn, FrameType.XEN_L2)
        if self.frames.type_count[mfn] != 1:
            self.put_page_and_type(mfn)
            raise XenError(Errno.EINVAL, f"mfn {mfn:#x} is slot 3 of another L3 table already")

    # --- whole tables --------------------------------------------------------------
    def present_entries(self, mfn: int, kind: FrameType) -> list[tuple[int, int]]:
        """The guest's slots of a table that are present, with their entries."""
        nr = self.mode.slots[LEVEL_OF[kind]]
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
        if kind == FrameType.SEGDESC:
            check_page(self.frames.memory, self.width, mfn)
            return
        nr = self.mode.slots[LEVEL_OF[kind]]
        self.budget -= nr
        if kind != FrameType.L1:
            self._validate_table(mfn, kind, self.present_entries(mfn, kind))
            self._fill_xen_slots(mfn, kind)
            return
        bulk = self.bulk(nr)
        if bulk is None or not bulk.validate(mfn):
            self._validate_leaves(mfn, self.present_entries(mfn, kind))

    def _validate_leaves(self, mfn: int, entries: list[tuple[int, int]]) -> None:
        words = self._words
        first = mfn << PAGE_SHIFT >> self._shift
        done = 0
        try:
            for slot, entry in entries:
                if entry & self._leaf_disallowed:
                    self._refuse_bits(1, entry)
                self._get_leaf(entry, self.domid)
                words[first + slot] = self._adjusted_leaf(entry)
                done += 1
        except XenError:
            for _, entry in entries[:done]:
                self._put_leaf(entry)
            raise

    def _validate_table(self, mfn: int, kind: FrameType, entries: list[tuple[int, int]]) -> None:
        level = LEVEL_OF[kind]
        words = self._words
        first = mfn << PAGE_SHIFT >> self._shift
        is_pae_l3 = level == 3 and self.mode is PAE
        if is_pae_l3:
            self._check_pae_l3(mfn, entries)
        done = 0
        try:
            for slot, entry in entries:
                if self.budget <= 0:
                    raise OutOfBudget
                if entry & self.disallowed[level]:
                    self._refuse_bits(level, entry)
                if is_pae_l3 and slot == _PAE_XEN_SLOT:
                    self._get_xen_l2((entry & PTE_FRAME) >> PAGE_SHIFT)
                else:
                    self._get_table(level, mfn, entry)
                words[first + slot] = adjusted(self.width, level, entry)
                done += 1
        except XenError:
            for _, entry in entries[:done]:
                self._put_table(mfn, entry)
            raise
        except OutOfBudget:
            for _, entry in entries[:done]:
                self._keep_table(mfn, entry)
            raise

    def _keep_table(self, table: int, entry: int) -> None:
        """What was held by an entry is held for a retry instead; a linear one is simply put."""
        named = (entry & PTE_FRAME) >> PAGE_SHIFT
        kinds = self.frames.type
        if LEVEL_OF[kinds[named]] == LEVEL_OF[kinds[table]]:
            self._put_table(table, entry)
        else:
            self._keep.append(named)

    def _check_pae_l3(self, mfn: int, entries: list[tuple[int, int]]) -> None:
        """CR3 has 32 bits there, and slot 3 leads to Xen's region (promote_l3_table)."""
        if mfn >= _MFN_4GIB and not self.extended_cr3:
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
        if kind == FrameType.SEGDESC:
            return
        nr = self.mode.slots[LEVEL_OF[kind]]
        self.budget -= nr
        if kind != FrameType.L1:
            for _, entry in self.present_entries(mfn, kind):
                self._put_table(mfn, entry)
            return
        bulk = self.bulk(nr)
        if bulk is None or not bulk.invalidate(mfn):
            for _, entry in self.present_entries(mfn, kind):
                self._put_leaf(entry)
