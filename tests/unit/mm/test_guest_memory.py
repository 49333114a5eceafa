"""Guest pointers: what is refused, and that a write that faults has written nothing."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.width import Width
from hypervisor.mm.guest_memory import GuestFault, GuestMemory
from hypervisor.mm.hole_map import HOLE
from hypervisor.x86.paging import PTE_A, PTE_D
from tests.support.small_machine import RW, P, SmallMachine, refused

PAGE = 4096


class Space:
    """Two pages that follow each other, writable and not; then nothing."""

    def __init__(self, small: SmallMachine) -> None:
        chain = small.chain(RW)
        self.small = small
        self.l1, self.first = chain[-2:]
        self.second = small.own[-1]
        small.update(self.l1, 1, self.second << 12 | P)
        is_pae = small.width is Width.X86_32P
        self.start = 3 << 30 if is_pae else 0
        self.written: list[tuple[int, int]] = []
        self.mem = GuestMemory(
            small.memory,
            small.width,
            lambda: chain[0] << 12,
            lambda maddr, size: self.written.append((maddr, size)),
        )


@pytest.fixture
def space(small: SmallMachine) -> Space:
    return Space(small)


def test_what_is_written_is_read(space: Space) -> None:
    space.mem.write(space.start + 100, b"hello")
    assert space.mem.read(space.start + 100, 5) == b"hello"
    assert space.written == [((space.first << 12) + 100, 5)]


def test_a_read_crosses_pages_that_do_not_follow_in_memory(space: Space) -> None:
    space.small.memory.write((space.first << 12) + PAGE - 2, b"ab")
    space.small.memory.write(space.second << 12, b"cd")
    assert space.mem.read(space.start + PAGE - 2, 4) == b"abcd"


def test_a_page_that_is_not_mapped_faults(space: Space) -> None:
    with refused(Errno.EFAULT, r"^cannot read at 0x[0-9a-f]*2000: it is not mapped$"):
        space.mem.read(space.start + 2 * PAGE, 1)


def test_a_read_only_page_is_not_written(space: Space) -> None:
    with refused(Errno.EFAULT, r"^cannot write at .*: it is not writable$"):
        space.mem.write(space.start + PAGE, b"x")


def test_a_write_that_faults_in_its_second_page_writes_nothing(space: Space) -> None:
    with refused(Errno.EFAULT, r"is not writable$"):
        space.mem.write(space.start + PAGE - 2, b"abcd")
    assert bytes(space.small.memory.frame(space.first)[-2:]) == bytes(2)
    assert space.written == []


def test_the_mmu_would_have_set_accessed_and_dirty(space: Space) -> None:
    space.mem.read(space.start, 1)
    assert space.small.read(space.l1, 0) & (PTE_A | PTE_D) == PTE_A
    space.mem.write(space.start, b"x")
    assert space.small.read(space.l1, 0) & (PTE_A | PTE_D) == PTE_A | PTE_D


def test_emulation_sees_the_fault_itself(space: Space) -> None:
    with pytest.raises(GuestFault) as fault:
        space.mem.write_raw(space.start + PAGE, b"x")
    assert (fault.value.vaddr, fault.value.write, fault.value.present) == (
        space.start + PAGE,
        True,
        True,
    )


def nowhere(width: Width) -> list[tuple[int, int]]:
    """Ranges that touch Xen's region, the gap, or the end of the address space."""
    hole = HOLE[width].vaddr
    ranges = [(hole, 1), (hole - 1, 2), (HOLE[width].windows_vaddr, 8)]
    if width.is_64:
        return [
            *ranges,
            (1 << 47, 1),
            ((1 << 47) - 4, 8),
            (0xFFFF_87FF_FFFF_FFFC, 8),
            ((1 << 64) - 4, 8),
            (1 << 64, 8),
        ]
    return [*ranges, (0xFFFF_FFFC, 8), (1 << 32, 8), (1 << 40, 8)]


def test_xens_region_and_beyond_are_not_the_guests(space: Space) -> None:
    for vaddr, size in nowhere(space.small.width):
        with refused(Errno.EFAULT, r"is not mapped$"):
            space.mem.read(vaddr, size)
        with refused(Errno.EFAULT, r"is not mapped$"):
            space.mem.write(vaddr, bytes(size))


def test_of_an_array_32_bit_guests_show_it_all_and_64_bit_ones_its_start(space: Space) -> None:
    hole = HOLE[space.small.width].vaddr
    assert not space.mem.is_guest_handle(hole, 1)
    assert space.mem.is_guest_handle(hole - 8, 4) != space.small.width.is_64
    assert space.mem.is_guest_handle(0x1000, 1 << 40) == space.small.width.is_64
