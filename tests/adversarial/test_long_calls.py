"""Calls that would keep the machine busy for minutes are done in pieces, and come to their end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.layout import layout
from hypervisor.abi.memory import XenmemOp, XenMemoryReservation
from hypervisor.abi.types import DOMID_SELF
from hypervisor.abi.width import Width
from hypervisor.abi.xen import (
    HypercallNr,
    MmuCommand,
    MmuextCmd,
    MmuextOp,
    MmuUpdate,
    MulticallEntry,
)
from hypervisor.hypercalls.mmu_batch import MMU_UPDATE_PREEMPTED, REQUESTS_PER_PIECE
from hypervisor.hypercalls.mmuext import move_to_cr3
from hypervisor.mm.audit import audit
from hypervisor.mm.frames import PINNED
from tests.support.attacker import Attacker, attacker
from tests.support.callers import BASE

PAGE = 4096
UPDATES_PER_PAGE = PAGE // 16


@pytest.fixture(params=Width, ids=lambda width: width.name)
def villain(request: pytest.FixtureRequest) -> Iterator[Attacker]:
    with attacker(request.param) as one:
        yield one
        one.check()


def many_updates(villain: Attacker, nr_pages: int) -> int:
    """A range in which every page is the same one, full of harmless updates; its address."""
    guest = villain.guest
    mfn = guest.dom.p2m[64]
    update = MmuUpdate(mfn << 12 | MmuCommand.MACHPHYS_UPDATE, 7)
    page = layout(MmuUpdate, villain.width).pack(update) * UPDATES_PER_PAGE
    villain.host.memory.frame(mfn)[:] = page
    start = BASE[villain.width] + len(guest.dom.p2m) * PAGE - nr_pages * PAGE  # nothing behind it
    for idx in range(nr_pages):
        entry = mfn << 12 | 1
        halves = (entry,) if villain.width.is_64 else (entry & 0xFFFF_FFFF, entry >> 32)
        vaddr = start + idx * PAGE
        assert villain.call(HypercallNr.UPDATE_VA_MAPPING, vaddr, *halves, 0) == 0
    return start


def done(villain: Attacker) -> int:
    return int.from_bytes(villain.guest.get(4, 1024), "little")


def test_many_updates_are_done_in_pieces(villain: Attacker) -> None:
    vaddr = many_updates(villain, 20)
    before_ns = villain.host.now_ns
    count = 20 * UPDATES_PER_PAGE
    args = (vaddr, count, villain.guest.data + 1024, DOMID_SELF)
    assert villain.call(HypercallNr.MMU_UPDATE, *args) == 0
    assert done(villain) == count
    assert villain.pieces == count // REQUESTS_PER_PIECE
    assert villain.host.now_ns >= before_ns + (villain.pieces - 1) * 1_000_000


def test_the_largest_count_ends_at_the_first_fault(villain: Attacker) -> None:
    vaddr = many_updates(villain, 4)
    villain.guest.put(bytes(4), 1024)
    args = (vaddr, MMU_UPDATE_PREEMPTED - 1, villain.guest.data + 1024, DOMID_SELF)
    assert villain.call(HypercallNr.MMU_UPDATE, *args) == -Errno.EFAULT
    if villain.width.is_64:  # of 32-bit guests Xen looks at the whole range at once
        assert done(villain) == 4 * UPDATES_PER_PAGE


def test_a_continuation_made_up_by_the_guest_returns_its_own_number(villain: Attacker) -> None:
    number = -Errno.EBUSY & 0xFFFF_FFFF
    for hypercall in (HypercallNr.MMU_UPDATE, HypercallNr.MMUEXT_OP):
        assert villain.call(hypercall, 0, MMU_UPDATE_PREEMPTED, 0, number) == -Errno.EBUSY


def test_a_long_call_in_a_multicall_is_finished_before_the_next(villain: Attacker) -> None:
    vaddr = many_updates(villain, 6)
    count = 6 * UPDATES_PER_PAGE
    args = [vaddr, count, villain.guest.data + 1024, DOMID_SELF, 0, 0]
    shape = layout(MulticallEntry, villain.width)
    long_one = shape.pack(MulticallEntry(HypercallNr.MMU_UPDATE, 0x55, args))
    nested = shape.pack(MulticallEntry(HypercallNr.MULTICALL, 0x55, [vaddr, 1, 0, 0, 0, 0]))
    unknown = shape.pack(MulticallEntry(63, 0x55, [0] * 6))
    at = villain.guest.put(long_one + nested + unknown, 2048)
    assert villain.call(HypercallNr.MULTICALL, at, 3) == 0
    assert done(villain) == count
    assert villain.pieces > 1
    raw = villain.guest.get(3 * shape.size, 2048)
    results = [shape.unpack_from(raw, idx * shape.size).result for idx in range(3)]
    mask = (1 << villain.width.bits) - 1
    assert results == [0, -Errno.EINVAL & mask, -Errno.ENOSYS & mask]


def test_a_list_of_four_thousand_million_calls_ends_at_the_first_fault(villain: Attacker) -> None:
    at = villain.guest.put(b"\xff" * 1024, 2048)
    assert villain.call(HypercallNr.MULTICALL, at, 0xFFFF_FFFF) == -Errno.EFAULT


def tree(villain: Attacker, nr_leaf_tables: int) -> tuple[int, int]:
    """A table with many tables below it, all entries in use; its frame and its pin command."""
    size = villain.guest.dom.page_tables.mode.entry_bytes
    data, upper, *leaves = villain.unmap_spare_frames(nr_leaf_tables + 2)
    full = (data << 12 | 1).to_bytes(size, "little") * (PAGE // size)
    for leaf in leaves:
        villain.host.memory.frame(leaf)[:] = full
    entries = b"".join((leaf << 12 | 7).to_bytes(size, "little") for leaf in leaves)
    villain.host.memory.frame(upper)[: len(entries)] = entries
    return upper, MmuextCmd.PIN_L2_TABLE


def operate(villain: Attacker, op: MmuextOp) -> int | None:
    vaddr = villain.guest.put(layout(MmuextOp, villain.width).pack(op))
    return villain.call(HypercallNr.MMUEXT_OP, vaddr, 1, 0, DOMID_SELF)


def test_a_pin_that_means_a_hundred_tables_is_done_in_pieces(villain: Attacker) -> None:
    upper, pin = tree(villain, 100)
    assert operate(villain, MmuextOp(pin, upper, 0)) == 0
    assert villain.pieces >= 3
    assert villain.host.frames.flags[upper] & PINNED
    villain.check()
    assert operate(villain, MmuextOp(MmuextCmd.UNPIN_TABLE, upper, 0)) == 0
    assert villain.pieces >= 3
    assert villain.host.frames.type_count[upper] == 0


def test_a_pin_refused_at_its_last_entry_gives_everything_back(villain: Attacker) -> None:
    upper, pin = tree(villain, 100)
    size = villain.guest.dom.page_tables.mode.entry_bytes
    foreign = (villain.neighbour.dom.p2m[0] << 12 | 7).to_bytes(size, "little")
    villain.host.memory.frame(upper)[100 * size : 101 * size] = foreign
    assert operate(villain, MmuextOp(pin, upper, 0)) == -Errno.EINVAL
    assert villain.pieces >= 3
    tables = villain.guest.dom.page_tables
    assert (tables.kept, tables.doomed) == ({}, [])


def test_a_mov_to_cr3_that_means_a_hundred_tables_is_executed_again_and_again() -> None:
    with attacker(Width.X86_32) as villain:
        upper, _ = tree(villain, 100)
        guest = villain.guest
        root = guest.vcpu.root_mfn
        old = bytes(villain.host.memory.frame(root))
        kernel_slot = BASE[Width.X86_32] >> 22
        entry = old[kernel_slot * 4 : kernel_slot * 4 + 4]
        villain.host.memory.frame(upper)[kernel_slot * 4 : kernel_slot * 4 + 4] = entry
        caller = guest.enter()
        tries = 1
        while not move_to_cr3(caller, upper):
            assert guest.vcpu.root_mfn == root
            villain.check()
            tries += 1
        assert tries >= 3
        assert guest.vcpu.root_mfn == upper
        villain.check()


def test_tables_that_wait_for_a_retry_are_given_back_at_the_end(villain: Attacker) -> None:
    """The guest never comes back to its pin: the domain's end finds what was kept for it."""
    upper, pin = tree(villain, 100)
    vaddr = villain.guest.put(layout(MmuextOp, villain.width).pack(MmuextOp(pin, upper, 0)))
    villain.most_pieces = 1
    villain.call(HypercallNr.MMUEXT_OP, vaddr, 1, 0, DOMID_SELF)
    assert villain.guest.dom.page_tables.kept
    villain.check()
    domid = villain.guest.dom.domid
    villain.machine.vmm.destroy(villain.guest.dom)
    assert villain.host.frames.owned_by(domid) == []
    audit(villain.host.frames, villain.machine.vmm.audit_subjects())


@pytest.mark.parametrize(
    ("nr_extents", "order"),
    [(1, 10), (1, 63), (1, 0xFFFF_FFFF), (0xFFFF_FFFF, 0), (1 << 26, 0), (0, 0)],
)
def test_extents_beyond_all_limits_are_none(villain: Attacker, nr_extents: int, order: int) -> None:
    arg = XenMemoryReservation(villain.guest.data + 256, nr_extents, order, 0, DOMID_SELF)
    vaddr = villain.guest.put(layout(XenMemoryReservation, villain.width).pack(arg))
    for operation in (
        XenmemOp.INCREASE_RESERVATION,
        XenmemOp.DECREASE_RESERVATION,
        XenmemOp.POPULATE_PHYSMAP,
    ):
        assert villain.call(HypercallNr.MEMORY_OP, operation, vaddr) == 0


def test_memory_given_back_but_still_mapped_cannot_be_had_twice(villain: Attacker) -> None:
    """Else a domain could own the whole machine, a reservation at a time."""
    guest = villain.guest
    word = villain.width.word_bytes
    extent = guest.put(guest.dom.p2m[2].to_bytes(word, "little"), 256)  # the data page itself
    arg = XenMemoryReservation(extent, 1, 0, 0, DOMID_SELF)
    vaddr = guest.put(layout(XenMemoryReservation, villain.width).pack(arg))
    assert villain.call(HypercallNr.MEMORY_OP, XenmemOp.DECREASE_RESERVATION, vaddr) == 1
    assert villain.call(HypercallNr.MEMORY_OP, XenmemOp.INCREASE_RESERVATION, vaddr) == 0
    assert villain.host.frames.nr_held(guest.dom.domid) == guest.dom.max_frames
