"""Xen's part of every address space: the machine-to-physical table and the descriptor windows.

A guest's tables contain, in slots that it cannot change, a region that belongs to Xen: the top 64
MB for x86_32 (from 0xfc000000), the region from 0xf5800000 for x86_32p, L4 slots 256..271 for
x86_64. It is the same in every table of a domain, so entering and leaving the VMM changes no
mapping and flushes nothing. Segment limits do not protect it here (the engine does not enforce
them): all of it is supervisor, read-only, never executable where the mode has NX, and holds nothing
secret.

Two things live there. The M2P, an array of pseudo-physical numbers by machine frame, which guests
read. And per domain the descriptor windows: for each vCPU 16 pages through which the CPU reads the
GDT (the guest's 14, then Xen's own) and 16 for the LDT, at `base + vcpu * 0x20000` as in Xen
(GDT_VIRT_START, LDT_VIRT_START in arch/x86/include/asm/config.h).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.mm.entries import PAGING_MODE
from hypervisor.mm.frames import OWNER_XEN, FrameTable
from hypervisor.mm.hole_map import GDT_GUEST_PAGES, HOLE, LDT_OFFSET, WINDOW_SHIFT
from hypervisor.mm.pagetables import XenSlots
from hypervisor.x86.paging import (
    PAGE_SHIFT,
    PAGE_SIZE,
    PTE_A,
    PTE_D,
    PTE_FRAME,
    PTE_NX,
    PTE_P,
    PTE_RW,
    PTE_US,
    PagingMode,
)

INVALID_M2P_32: Final = 0xFFFF_FFFF
INVALID_M2P_64: Final = 0xFFFF_FFFF_FFFF_FFFF


_TABLE_FLAGS: Final = PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D


def _leaf_flags(mode: PagingMode) -> int:
    return PTE_P | PTE_A | PTE_D | (PTE_NX if mode.entry_bytes == 8 else 0)


class M2P:
    """The machine-to-physical table: which pseudo-physical number a frame has in its owner.

    Kept twice, as guests of both word sizes read it in their own (MACH2PHYS_VIRT_START).
    """

    def __init__(self, frames: FrameTable) -> None:
        self._frames = frames
        memory = frames.memory
        nr = frames.nr_frames
        self.frames32 = _contiguous(frames, (nr * 4 + PAGE_SIZE - 1) // PAGE_SIZE)
        self.frames64 = _contiguous(frames, (nr * 8 + PAGE_SIZE - 1) // PAGE_SIZE)
        start32, start64 = self.frames32[0] << PAGE_SHIFT, self.frames64[0] << PAGE_SHIFT
        self._m2p32 = memory.u32[start32 >> 2 : (start32 >> 2) + nr]
        self._m2p64 = memory.u64[start64 >> 3 : (start64 >> 3) + nr]
        for table in (self.frames32, self.frames64):
            for mfn in table:
                memory.frame(mfn)[:] = b"\xff" * PAGE_SIZE

    def set(self, mfn: int, pfn: int) -> None:
        """Record that `mfn` is its owner's `pfn`."""
        self._m2p32[mfn] = pfn & INVALID_M2P_32
        self._m2p64[mfn] = pfn & INVALID_M2P_64

    def clear(self, mfn: int) -> None:
        """Record that `mfn` has no pseudo-physical number."""
        self._m2p32[mfn] = INVALID_M2P_32
        self._m2p64[mfn] = INVALID_M2P_64

    def get(self, mfn: int) -> int | None:
        """The pseudo-physical number of `mfn`, None when it has none."""
        pfn = self._m2p64[mfn]
        return None if pfn == INVALID_M2P_64 else pfn

    def table_frames(self, width: Width) -> list[int]:
        """The frames that hold the table as guests of `width` read it."""
        return self.frames64 if width.is_64 else self.frames32


def _contiguous(frames: FrameTable, count: int) -> list[int]:
    """Take `count` neighbouring free frames for Xen, from the bottom of memory."""
    start = 1
    while any(frames.owner[mfn] == OWNER_XEN for mfn in range(start, start + count)):
        start += 1
    return frames.take(range(start, start + count), OWNER_XEN)


class XenMappings:
    """Builds Xen's region for domains; the M2P's tables are shared by all domains of a width."""

    def __init__(self, frames: FrameTable, m2p: M2P) -> None:
        self.frames = frames
        self.m2p = m2p
        (self.zero_frame,) = frames.allocate_xen(1)  # what a GDT has where the guest gave nothing
        self._m2p_slots: dict[Width, dict[int, int]] = {}

    def for_domain(self, width: Width, nr_vcpus: int, gdt_frame: int) -> DomainWindows:
        """A new domain's region, with `gdt_frame` as Xen's page of every vCPU's GDT."""
        hole = HOLE[width]
        mode = PAGING_MODE[width]
        slots = dict(self._m2p_entries(width))
        builder = _TableBuilder(self.frames, mode, _top_level(mode))
        leaves: list[int] = []
        with builder.all_or_nothing():
            for vcpu in range(nr_vcpus):
                base = hole.windows_vaddr + (vcpu << WINDOW_SHIFT)
                leaves.append(builder.leaf_entry(base, slots))
                zero = self.zero_frame << PAGE_SHIFT | _leaf_flags(mode)
                for idx in range(GDT_GUEST_PAGES):
                    builder.write(leaves[-1] + idx * mode.entry_bytes, zero)
                page = base + (GDT_GUEST_PAGES << PAGE_SHIFT)
                entry = gdt_frame << PAGE_SHIFT | _leaf_flags(mode)
                builder.write(builder.leaf_entry(page, slots), entry)
        size = mode.entry_bytes
        raw = bytearray((hole.end_slot - hole.first_slot) * size)
        for slot, entry in slots.items():
            at = (slot - hole.first_slot) * size
            raw[at : at + size] = entry.to_bytes(size, "little")
        xen_slots = XenSlots(hole.table, hole.first_slot, hole.end_slot, bytes(raw))
        return DomainWindows(
            xen_slots, hole.windows_vaddr, tuple(leaves), builder.tables, mode, self.zero_frame
        )

    def _m2p_entries(self, width: Width) -> dict[int, int]:
        if width not in self._m2p_slots:
            mode = PAGING_MODE[width]
            slots: dict[int, int] = {}
            builder = _TableBuilder(self.frames, mode, _top_level(mode))
            vaddr = HOLE[width].m2p_vaddr
            flags = _leaf_flags(mode) | (PTE_US if width.is_64 else 0)  # its kernel is in ring 3
            with builder.all_or_nothing():
                for mfn in self.m2p.table_frames(width):
                    entry = mfn << PAGE_SHIFT | flags
                    builder.write(builder.leaf_entry(vaddr, slots), entry)
                    vaddr += PAGE_SIZE
            self._m2p_slots[width] = slots
        return self._m2p_slots[width]


def _top_level(mode: PagingMode) -> int:
    """The level of the table that holds Xen's slots: PAE's is an L2, the others' the root."""
    return 2 if mode.levels == 3 else mode.levels


@dataclass(slots=True)
class DomainWindows:
    """A domain's descriptor windows: `gdt_leaves[vcpu]` is where that vCPU's first entry lies."""

    xen_slots: XenSlots
    vaddr: int
    gdt_leaves: tuple[int, ...]
    tables: list[int]
    mode: PagingMode
    zero_frame: int  # Xen's: a page of descriptors that are not present

    def gdt_vaddr(self, vcpu: int) -> int:
        """The linear base of a vCPU's GDT."""
        return self.vaddr + (vcpu << WINDOW_SHIFT)

    def ldt_vaddr(self, vcpu: int) -> int:
        """The linear base of a vCPU's LDT."""
        return self.gdt_vaddr(vcpu) + LDT_OFFSET

    def entry_maddr(self, vcpu: int, page: int) -> int:
        """Where the entry of one window page lies (pages 0..15 GDT, 16..31 LDT)."""
        return self.gdt_leaves[vcpu] + page * self.mode.entry_bytes

    def empty_leaf(self, page: int) -> int:
        """The entry of a window page that holds nothing of the guest's.

        A selector of the GDT that leads there is #GP, as if the table were full of null
        descriptors. An LDT's page is not mapped: the fault is where it is looked up.
        """
        return self.leaf(self.zero_frame) if page < GDT_GUEST_PAGES else 0

    def leaf(self, mfn: int) -> int:
        """The entry that maps `mfn` into a window: supervisor, read-only."""
        return mfn << PAGE_SHIFT | _leaf_flags(self.mode)


class _TableBuilder:
    """Allocates Xen-owned tables on demand while entries are placed."""

    def __init__(self, frames: FrameTable, mode: PagingMode, top: int) -> None:
        self.frames = frames
        self.mode = mode
        self.top = top
        self.tables: list[int] = []
        self._words = frames.memory.u32 if mode.entry_bytes == 4 else frames.memory.u64

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Whoever runs out of memory within gives the tables made so far back."""
        try:
            yield
        except XenError:
            for mfn in self.tables:
                self.frames.release_allocation(mfn)
            raise

    def leaf_entry(self, vaddr: int, slots: dict[int, int]) -> int:
        """The machine address of `vaddr`'s level-1 entry; tables below `slots` made as needed."""
        mode = self.mode
        slot = mode.index(vaddr, self.top)
        if slot not in slots:
            slots[slot] = self._new_table()
        table = slots[slot] & PTE_FRAME
        for level in range(self.top - 1, 1, -1):
            maddr = table + mode.index(vaddr, level) * mode.entry_bytes
            if not self._words[maddr >> mode.entry_shift]:
                self.write(maddr, self._new_table())
            table = self._words[maddr >> mode.entry_shift] & PTE_FRAME
        return table + mode.index(vaddr, 1) * mode.entry_bytes

    def write(self, maddr: int, entry: int) -> None:
        """Place an entry."""
        self._words[maddr >> self.mode.entry_shift] = entry

    def _new_table(self) -> int:
        (mfn,) = self.frames.allocate_xen(1)
        self.tables.append(mfn)
        return mfn << PAGE_SHIFT | _TABLE_FLAGS
