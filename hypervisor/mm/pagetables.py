"""Direct paging: the guest's own tables are what the MMU walks, so every entry is checked first.

A table is *validated* when its first type reference is taken (page_types): each present entry takes
a reference on the frame it names, and a type reference: WRITABLE for a writable leaf, the next
lower table type above. While a table is validated no entry of it changes but through
`update_entry`, because no writable mapping of it can exist. When the last type reference goes, all
entries give theirs back.

Rules and error numbers are those of Xen 4.17's arch/x86/mm.c (get_page_from_l2e, promote_l2_table,
mod_l2_entry and neighbours). What leaves may be and hold is in `leaf_tables`, what is above them
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.mm.descriptors import check_page
from hypervisor.mm.entries import (
    CHEAP_BITS,
    LEVEL_OF,
    TYPE_OF_LEVEL,
    adjusted,
)
from hypervisor.mm.frames import VALIDATED, FrameTable, FrameType
from hypervisor.mm.leaf_tables import LeafTables
from hypervisor.mm.linear import LinearUses
from hypervisor.mm.page_types import UNLIMITED, OutOfBudget
from hypervisor.x86.paging import (
    PAE,
    PAGE_SHIFT,
    PAGE_SIZE,
    PTE_A,
    PTE_D,
    PTE_FRAME,
    PTE_P,
    PTE_RW,
)

__all__ = ["UNLIMITED", "OutOfBudget", "PageTables", "XenSlots"]

_PAE_XEN_SLOT: Final = 3  # of a PAE L3: names the L2 with Xen's slots
_MFN_4GIB: Final = 1 << 20
_L1: Final = int(FrameType.L1)
_ACCESSED_DIRTY: Final = PTE_A | PTE_D


@dataclass(frozen=True, slots=True)
class XenSlots:
    """What Xen puts into the slots of a table that it keeps for itself."""

    table: FrameType  # the type of table that holds them
    first: int
    end: int
    entries: bytes  # raw, for slots [first, end)


class PageTables(LeafTables):
    """One domain's page tables: validates, changes and releases them."""

    def __init__(self, frames: FrameTable, width: Width, domid: int, xen_slots: XenSlots) -> None:
        super().__init__(frames, width, domid)
        self.xen_slots = xen_slots
        self.linear = LinearUses()
        self.extended_cr3 = False  # PAE: L3 tables may lie above 4 GiB

    @property
    def root_type(self) -> FrameType:
        """The type of a top-level table."""
        return TYPE_OF_LEVEL[self.mode.levels]

    # --- entries -----------------------------------------------------------------
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
        if self._code_frames[mfn]:
            self._forget_code(maddr)
        if old & PTE_P and not keeps_references:
            self._put_table(mfn, old)

    def _refuse_private_slot(self, kind: FrameType, slot: int) -> None:
        xen = self.xen_slots
        if kind == xen.table and xen.first <= slot < xen.end:
            errno = Errno.EPERM if LEVEL_OF[kind] == 2 else Errno.EINVAL
            raise XenError(errno, f"slot {slot} of an {kind.name} table is Xen's")
        if kind == FrameType.L3 and self.mode is PAE and slot >= _PAE_XEN_SLOT:
            raise XenError(Errno.EINVAL, f"slot {slot} of a PAE L3 table cannot change")

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
        try:
            self._check_and_adjust(mfn, kind)
        finally:
            if self._code_frames[mfn]:
                self.frames.code_written(mfn << PAGE_SHIFT, PAGE_SIZE)

    def _check_and_adjust(self, mfn: int, kind: FrameType) -> None:
        if kind == FrameType.SEGDESC:
            check_page(self.frames.memory, self.width, mfn)
            return
        nr = self.mode.slots[LEVEL_OF[kind]]
        self.budget -= nr
        if kind != FrameType.L1:
            self._validate_table(mfn, kind, self.present_entries(mfn, kind))
            self._fill_xen_slots(mfn, kind)
            return
        self._validate_leaves(mfn)

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
        self._invalidate_leaves(mfn)
