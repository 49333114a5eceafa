"""Direct paging: the guest's own tables are what the MMU walks, so every entry is checked first.

A table is *validated* when its first type reference is taken: each present entry takes a reference
on the frame it names (and a type reference: WRITABLE for a writable leaf, the next lower table type
above). While a table is validated no entry of it changes but through `update_entry`, because no
writable mapping of it can exist. When the last type reference goes, all entries give theirs back.

Rules and error numbers are those of Xen 4.17's arch/x86/mm.c (get_page_from_l1e, promote_l2_table,
mod_l1_entry and neighbours). Not here yet: linear page tables, batches by array operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.mm.descriptors import check_page
from hypervisor.mm.frames import (
    PINNED,
    VALIDATED,
    VALIDATED_TYPES,
    FrameTable,
    FrameType,
)
from hypervisor.x86.paging import (
    LEGACY,
    LONG,
    PAE,
    PAGE_SHIFT,
    PTE_A,
    PTE_D,
    PTE_FRAME,
    PTE_G,
    PTE_NX,
    PTE_P,
    PTE_PAT,
    PTE_PCD,
    PTE_PWT,
    PTE_RW,
    PTE_US,
    PagingMode,
)

PAGING_MODE: Final = {Width.X86_32: LEGACY, Width.X86_32P: PAE, Width.X86_64: LONG}

#: Software bits of 64-bit guests' leaves (_PAGE_GUEST_KERNEL, _PAGE_GNTTAB in Xen's x86_64/page.h).
PTE_GUEST_KERNEL: Final = 1 << 52
PTE_GNTTAB: Final = 1 << 62

_UNCACHED: Final = PTE_PWT | PTE_PCD | PTE_PAT
_HIGH: Final = 0xFFF << 52
_NO_HIGH: Final = _HIGH & ~PTE_NX

#: Bits that an entry of each level must not have set, by width (L1..L4_DISALLOW_MASK).
#: A leaf may be global; an uncached one needs a domain with hardware, which no domain here has.
DISALLOWED: Final[dict[Width, tuple[int, ...]]] = {
    Width.X86_32: (0, _UNCACHED, _UNCACHED | PTE_G),
    Width.X86_32P: (
        0,
        _UNCACHED | _NO_HIGH,
        _UNCACHED | PTE_G | _NO_HIGH,
        _UNCACHED | PTE_G | _HIGH,
    ),
    Width.X86_64: (
        0,
        _UNCACHED | PTE_GNTTAB,
        _UNCACHED | PTE_G,
        _UNCACHED | PTE_G,
        _UNCACHED | PTE_G,
    ),
}

#: Bits of a leaf that may change without its references changing (FASTPATH_FLAG_WHITELIST).
_CHEAP_BITS: Final = PTE_NX | (0x7FF << 52) | 0xE00 | PTE_G | PTE_D | PTE_A | PTE_US

_LEVEL_OF: Final = {
    FrameType.L1: 1,
    FrameType.L2: 2,
    FrameType.XEN_L2: 2,
    FrameType.L3: 3,
    FrameType.L4: 4,
}
_TYPE_OF_LEVEL: Final = (
    FrameType.NONE,
    FrameType.L1,
    FrameType.L2,
    FrameType.L3,
    FrameType.L4,
)


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
        memory = frames.memory
        self._words = memory.u32 if self.mode.entry_bytes == 4 else memory.u64
        self._shift = self.mode.entry_shift

    @property
    def root_type(self) -> FrameType:
        """The type of a top-level table."""
        return _TYPE_OF_LEVEL[self.mode.levels]

    # --- types -------------------------------------------------------------------
    def get_page_type(self, mfn: int, want: FrameType) -> None:
        """Hold one more type reference on `mfn`, its contents validated as `want`.

        Raises XenError(EINVAL) if it is in use as another type, or if an entry is refused; nothing
        has changed then.
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
            except XenError:
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
        except XenError:
            self.frames.put_page(mfn)
            raise

    def put_page_and_type(self, mfn: int) -> None:
        """The opposite of get_page_and_type."""
        self.put_page_type(mfn)
        self.frames.put_page(mfn)

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
        return kind if kind in _LEVEL_OF else FrameType.NONE

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
        level = _LEVEL_OF[kind]
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
        if old & PTE_P and not (new & PTE_P and _same_references(level, old, new)):
            self._put_entry(level, old)

    def _changed(self, level: int, slot: int, old: int, new: int, owner: int) -> int:
        """`new`, checked, with references taken where it differs from `old`, and fixed up."""
        if new & self.disallowed[level]:
            raise XenError(
                Errno.EINVAL,
                f"l{level}e {new:#x}: bits {new & self.disallowed[level]:#x} are not allowed",
            )
        if not (old & PTE_P and _same_references(level, old, new)):
            self._get_entry(level, slot, new, owner)
        return self._adjusted(level, new)

    def _refuse_private_slot(self, kind: FrameType, slot: int) -> None:
        xen = self.xen_slots
        if kind == xen.table and xen.first <= slot < xen.end:
            errno = Errno.EPERM if _LEVEL_OF[kind] == 2 else Errno.EINVAL
            raise XenError(errno, f"slot {slot} of an {kind.name} table is Xen's")
        if kind == FrameType.L3 and self.mode is PAE and slot >= 3:
            raise XenError(Errno.EINVAL, f"slot {slot} of a PAE L3 table cannot change")

    def _adjusted(self, level: int, entry: int) -> int:
        """The bits that Xen forces (adjust_guest_l1e .. adjust_guest_l4e)."""
        if self.width is Width.X86_64:
            if level > 1:
                return entry | PTE_US
            if not entry & PTE_US:
                return entry | PTE_US | PTE_GUEST_KERNEL
            return entry if entry & PTE_GUEST_KERNEL else entry | PTE_G
        if level == 3:
            return entry | PTE_US | PTE_RW
        return entry

    def _get_entry(self, level: int, slot: int, entry: int, owner: int) -> None:
        """Take the references of a present, allowed entry."""
        mfn = (entry & PTE_FRAME) >> PAGE_SHIFT
        frames = self.frames
        if level > 1:
            want = _TYPE_OF_LEVEL[level - 1]
            if level == 3 and slot == 3 and self.mode is PAE:
                want = FrameType.XEN_L2
            self.get_page_and_type(mfn, want)
            return
        frames.get_page(mfn, owner)
        if entry & PTE_RW:
            try:
                self.get_page_type(mfn, FrameType.WRITABLE)
            except XenError as refusal:
                frames.put_page(mfn)
                raise XenError(Errno.EBUSY, f"{refusal.why}; cannot map it writable") from None

    def _put_entry(self, level: int, entry: int) -> None:
        """Give back what a present entry held."""
        mfn = (entry & PTE_FRAME) >> PAGE_SHIFT
        if level > 1:
            self.put_page_and_type(mfn)
            return
        self.frames.stamp[mfn] = self.frames.epoch
        if entry & PTE_RW:
            self.put_page_type(mfn)
        self.frames.put_page(mfn)

    # --- whole tables --------------------------------------------------------------
    def _guest_slots(self, kind: FrameType) -> Iterator[int]:
        """The slots of a table that are the guest's."""
        nr = self.mode.slots[_LEVEL_OF[kind]]
        xen = self.xen_slots
        if kind != xen.table:
            yield from range(nr)
            return
        yield from range(xen.first)
        yield from range(xen.end, nr)

    def _validate(self, mfn: int, kind: FrameType) -> None:
        """Take the references of all entries, or of none."""
        if kind == FrameType.SEGDESC:
            check_page(self.frames.memory, self.width, mfn)
            return
        level = _LEVEL_OF[kind]
        words = self._words
        first = mfn << PAGE_SHIFT >> self._shift
        taken: list[int] = []
        try:
            for slot in self._guest_slots(kind):
                entry = words[first + slot]
                if entry & PTE_P:
                    words[first + slot] = self._changed(level, slot, 0, entry, self.domid)
                    taken.append(entry)
                elif level == 3 and slot == 3 and self.mode is PAE:
                    raise XenError(Errno.EINVAL, f"mfn {mfn:#x}: L3[3] must be present")
        except XenError:
            for entry in taken:
                self._put_entry(level, entry)
            raise
        self._fill_xen_slots(mfn, kind)

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
        level = _LEVEL_OF[kind]
        words = self._words
        first = mfn << PAGE_SHIFT >> self._shift
        for slot in self._guest_slots(kind):
            entry = words[first + slot]
            if entry & PTE_P:
                self._put_entry(level, entry)


def _same_references(level: int, old: int, new: int) -> bool:
    """Whether replacing `old` by `new` changes no count (both are present)."""
    if level > 1:
        return not (old ^ new) & PTE_FRAME
    return not (old ^ new) & ~_CHEAP_BITS
