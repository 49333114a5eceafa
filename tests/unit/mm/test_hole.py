"""Xen's part of an address space: nothing in it is the guest's to write, or another domain's."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.width import Width
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.frames import OWNER_XEN, FrameTable
from hypervisor.mm.hole import INVALID_M2P_32, INVALID_M2P_64, M2P, XenMappings
from hypervisor.mm.hole_map import GDT_GUEST_PAGES, HOLE
from hypervisor.mm.walk import walk
from hypervisor.x86.paging import PTE_NX, PTE_RW, PTE_US
from tests.support.small_machine import refused

NR_FRAMES = 1024


class Xen:
    """A machine's M2P, and the region of a domain with two vCPUs."""

    def __init__(self, width: Width, nr_vcpus: int = 2) -> None:
        self.width = width
        self.memory = MachineMemory(NR_FRAMES * 4096)
        self.frames = FrameTable(self.memory)
        self.m2p = M2P(self.frames)
        self.mappings = XenMappings(self.frames, self.m2p)
        (self.gdt,) = self.frames.allocate_xen(1)
        self.windows = self.mappings.for_domain(width, nr_vcpus, self.gdt)
        (self.root,) = self.frames.allocate_xen(1)
        self._fill_root()

    def _fill_root(self) -> None:
        """A root with nothing but Xen's slots; PAE needs an L2 below it."""
        slots = self.windows.xen_slots
        size = self.windows.mode.entry_bytes
        table = self.root
        if self.width is Width.X86_32P:
            (table,) = self.frames.allocate_xen(1)
            self.memory.write((self.root << 12) + 24, (table << 12 | 1).to_bytes(8, "little"))
        self.memory.write((table << 12) + slots.first * size, slots.entries)

    def look(self, vaddr: int) -> tuple[int | None, int]:
        """Frame and rights behind an address."""
        found = walk(self.memory, self.windows.mode, self.root << 12, vaddr)
        return None if found.maddr is None else found.maddr >> 12, found.flags


@pytest.fixture(params=Width, ids=lambda width: width.name)
def xen(request: pytest.FixtureRequest) -> Xen:
    return Xen(request.param)


def test_the_m2p_is_mapped_from_its_start(xen: Xen) -> None:
    start = HOLE[xen.width].m2p_vaddr
    for idx, mfn in enumerate(xen.m2p.table_frames(xen.width)):
        assert xen.look(start + idx * 4096)[0] == mfn


def test_nothing_is_writable_or_the_users_or_code(xen: Xen) -> None:
    """But the M2P is the user's where the kernel is in ring 3."""
    hole = HOLE[xen.width]
    for vaddr in (hole.m2p_vaddr, hole.windows_vaddr + GDT_GUEST_PAGES * 4096):
        _, rights = xen.look(vaddr)
        is_users = xen.width.is_64 and vaddr == hole.m2p_vaddr
        assert rights & (PTE_RW | PTE_US) == (PTE_US if is_users else 0)
        assert bool(rights & PTE_NX) == (xen.windows.mode.entry_bytes == 8)


def test_each_vcpu_has_a_window_with_xens_gdt_page(xen: Xen) -> None:
    for vcpu in range(2):
        page = xen.windows.gdt_vaddr(vcpu) + GDT_GUEST_PAGES * 4096
        assert xen.look(page)[0] == xen.gdt
        assert xen.look(xen.windows.ldt_vaddr(vcpu))[0] is None


def test_a_gdt_without_pages_is_full_of_null_descriptors(xen: Xen) -> None:
    """Never unmapped: a selector that leads there is #GP, not a page fault of Xen's."""
    for page in range(GDT_GUEST_PAGES):
        assert xen.look(xen.windows.gdt_vaddr(1) + page * 4096)[0] == xen.mappings.zero_frame
    assert not any(xen.memory.frame(xen.mappings.zero_frame))
    assert xen.windows.empty_leaf(0) == xen.windows.leaf(xen.mappings.zero_frame)
    assert xen.windows.empty_leaf(16) == 0


def test_an_entry_written_into_a_window_shows_there(xen: Xen) -> None:
    (mfn,) = xen.frames.allocate(1, 1)
    maddr = xen.windows.entry_maddr(1, 16)
    entry = xen.windows.leaf(mfn).to_bytes(xen.windows.mode.entry_bytes, "little")
    xen.memory.write(maddr, entry)
    assert xen.look(xen.windows.ldt_vaddr(1))[0] == mfn
    assert xen.look(xen.windows.ldt_vaddr(0))[0] is None


def test_domains_share_the_m2p_and_nothing_else(xen: Xen) -> None:
    again = xen.mappings.for_domain(xen.width, 2, xen.gdt)
    assert not set(again.tables) & set(xen.windows.tables)
    assert all(xen.frames.owner[mfn] == OWNER_XEN for mfn in again.tables)


def test_a_region_that_does_not_fit_takes_nothing(xen: Xen) -> None:
    xen.frames.allocate(1, xen.frames.nr_free - 1)
    with refused(Errno.ENOMEM, r"^1 frames wanted, 0 free$"):
        xen.mappings.for_domain(xen.width, 64, xen.gdt)
    assert xen.frames.nr_free == 1


class TestM2P:
    def test_it_starts_invalid(self, xen: Xen) -> None:
        assert xen.m2p.get(5) is None
        table = xen.memory.frame(xen.m2p.table_frames(xen.width)[0])
        assert bytes(table[:16]) == b"\xff" * 16

    def test_both_word_sizes_see_a_number(self, xen: Xen) -> None:
        xen.m2p.set(5, 77)
        assert xen.memory.u32[(xen.m2p.frames32[0] << 10) + 5] == 77
        assert xen.memory.u64[(xen.m2p.frames64[0] << 9) + 5] == 77
        xen.m2p.clear(5)
        assert xen.m2p.get(5) is None

    @pytest.mark.parametrize("pfn", [1 << 32, (1 << 64) - 2, 1 << 64])
    def test_numbers_of_any_size_are_cut(self, xen: Xen, pfn: int) -> None:
        """A guest chooses them: a 64-bit one for a 32-bit table, one that overflowed."""
        xen.m2p.set(5, pfn)
        assert xen.memory.u32[(xen.m2p.frames32[0] << 10) + 5] == pfn & INVALID_M2P_32
        assert xen.memory.u64[(xen.m2p.frames64[0] << 9) + 5] == pfn & INVALID_M2P_64
