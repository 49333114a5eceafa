"""Leaf tables (L1): the entries that map pages, which are nearly all that a guest ever changes.

A present leaf holds a reference on the frame it names, and a type reference, WRITABLE, if it maps
it writable. Here are the ways to change one leaf; where many are to be looked at, `bulk` does the
same with array operations. These are hot paths: what could be read off a table of rules is written
out.

Rules and error numbers are those of Xen 4.17 (get_page_from_l1e, mod_l1_entry, promote_l1_table in
arch/x86/mm.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.mm.entries import (
    CHEAP_BITS,
    DISALLOWED,
    INVALID_PTE_MFN,
    PAGING_MODE,
    PTE_GUEST_KERNEL,
    adjusted,
)
from hypervisor.mm.frames import FrameTable, FrameType
from hypervisor.mm.page_types import PageTypes
from hypervisor.x86.paging import PAGE_SHIFT, PTE_FRAME, PTE_G, PTE_P, PTE_RW, PTE_US, PagingMode

if TYPE_CHECKING:
    from hypervisor.mm.bulk import Bulk

_WORTH_BULK: Final = 64  # entries; fewer are done sooner one by one
_WORTH_NUMPY: Final = 64 * 1024  # entries done one by one before numpy is imported for the others
_WRITABLE: Final = int(FrameType.WRITABLE)
_DEAR_BITS: Final = ~CHEAP_BITS
_GUEST_KERNELS: Final = PTE_US | PTE_GUEST_KERNEL


class LeafTables(PageTypes):
    """The leaves of one domain's page tables."""

    def __init__(self, frames: FrameTable, width: Width, domid: int) -> None:
        super().__init__(frames, domid)
        self.width = width
        self.mode: PagingMode = PAGING_MODE[width]
        self.disallowed = DISALLOWED[width]
        memory = frames.memory
        self._words = memory.u32 if self.mode.entry_bytes == 4 else memory.u64
        self._shift = self.mode.entry_shift
        self._leaf_disallowed = self.disallowed[1]
        self.is_64 = width.is_64
        self.entry_mask = (1 << 8 * self.mode.entry_bytes) - 1
        # the frame table's columns, one look-up nearer
        self._nr_frames = frames.nr_frames
        self._owner, self._type, self._stamp = frames.owner, frames.type, frames.stamp
        self._type_count, self._ref_count = frames.type_count, frames.ref_count
        self._code_frames = frames.code_frames
        self._bulk: Bulk | None = None
        self._nr_singly = 0

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

    def read_entry(self, maddr: int) -> int:
        """The entry at a machine address."""
        return self._words[maddr >> self._shift]

    # --- changing one ------------------------------------------------------------------------
    def update_leaf(self, maddr: int, new: int, owner: int, keep: int = 0) -> None:
        """The same for an entry of a leaf table (mod_l1_entry); bits of the old one in `keep` stay.

        Bits that matter to nobody but the guest change without a look at the frame. The hottest
        path of all: `adjusted`, `_get_leaf` and `_put_leaf` are written out in it.
        """
        words = self._words
        idx = maddr >> self._shift
        old = words[idx]
        is_put = old & PTE_P
        if new & PTE_P:
            if new & self._leaf_disallowed:
                self._refuse_bits(1, new)
            if is_put and not (old ^ new) & _DEAR_BITS:
                is_put = 0
            else:
                mfn = (new & PTE_FRAME) >> PAGE_SHIFT
                if mfn >= self._nr_frames or self._owner[mfn] != owner:
                    self._refuse_frame(mfn, owner)
                if new & PTE_RW:
                    if self._type[mfn] == _WRITABLE and self._type_count[mfn]:
                        self._type_count[mfn] += 1
                    else:
                        self._get_writable(mfn)
                self._ref_count[mfn] += 1
            if self.is_64:
                if not new & PTE_US:
                    new |= _GUEST_KERNELS
                elif not new & PTE_GUEST_KERNEL:
                    new |= PTE_G
        words[idx] = new | old & keep if keep else new
        if self._code_frames[maddr >> PAGE_SHIFT]:
            self._forget_code(maddr)
        if is_put:
            mfn = (old & PTE_FRAME) >> PAGE_SHIFT
            self._stamp[mfn] = self.frames.epoch
            if old & PTE_RW:
                self._type_count[mfn] -= 1
            count = self._ref_count[mfn] - 1
            if count:
                self._ref_count[mfn] = count
            else:
                self.frames.put_page(mfn)

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
        if self._code_frames[maddr >> PAGE_SHIFT]:
            self._forget_code(maddr)
        if old & PTE_P:
            self._put_leaf(old)

    def _forget_code(self, maddr: int) -> None:
        """A guest can execute a page table, as it can read it: what has changed is other code."""
        self.frames.code_written(maddr, self.mode.entry_bytes)

    def _refuse_bits(self, level: int, entry: int) -> None:
        bits = entry & self.disallowed[level]
        raise XenError(Errno.EINVAL, f"l{level}e {entry:#x}: bits {bits:#x} are not allowed")

    # --- what it holds -----------------------------------------------------------------------
    def _adjusted_leaf(self, entry: int) -> int:
        return adjusted(self.width, 1, entry) if self.is_64 else entry

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

    # --- whole tables ------------------------------------------------------------------------
    def _present(self, mfn: int) -> list[tuple[int, int]]:
        """The slots of a leaf table that are present, with their entries."""
        first = mfn << PAGE_SHIFT >> self._shift
        words = self._words[first : first + self.mode.slots[1]].tolist()
        return [(slot, entry) for slot, entry in enumerate(words) if entry & PTE_P]

    def _validate_leaves(self, mfn: int) -> None:
        """Take the references of all leaves of a table, or of none. Raises XenError."""
        bulk = self.bulk(self.mode.slots[1])
        if bulk is not None and bulk.validate(mfn):
            return
        entries = self._present(mfn)
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

    def _invalidate_leaves(self, mfn: int) -> None:
        """Give back the references of all leaves."""
        bulk = self.bulk(self.mode.slots[1])
        if bulk is None or not bulk.invalidate(mfn):
            for _, entry in self._present(mfn):
                self._put_leaf(entry)
