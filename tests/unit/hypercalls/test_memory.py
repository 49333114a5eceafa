"""memory_op: extents that come and go, and what there is to ask."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.layout import layout
from hypervisor.abi.memory import (
    XenMachphysMapping,
    XenMachphysMfnList,
    XenmemOp,
    XenMemoryExchange,
    XenMemoryMap,
    XenMemoryReservation,
)
from hypervisor.abi.types import DOMID_SELF
from hypervisor.abi.xen import HypercallNr
from hypervisor.mm.frames import ALLOCATED, OWNER_FREE, OWNER_XEN, PINNED, FrameType
from hypervisor.mm.hole_map import HOLE
from tests.support.callers import UNMAPPED, Guest, refused
from tests.support.page_tables import page, spare

LIST = 256  # offset in the data page

EXTENT_OPS = pytest.mark.parametrize(
    "operation",
    [
        XenmemOp.INCREASE_RESERVATION,
        XenmemOp.DECREASE_RESERVATION,
        XenmemOp.POPULATE_PHYSMAP,
    ],
    ids=lambda operation: operation.name,
)


def extents(
    guest: Guest, operation: int, numbers: list[int], *, order: int = 0, domid: int = DOMID_SELF
) -> int | None:
    word = guest.width.word_bytes
    raw = b"".join(number.to_bytes(word, "little") for number in numbers)
    vaddr = guest.put(raw, LIST)
    arg = XenMemoryReservation(vaddr, len(numbers), order, 0, domid)
    return guest.op(HypercallNr.MEMORY_OP, operation, arg)


def listed(guest: Guest, count: int) -> list[int]:
    word = guest.width.word_bytes
    raw = guest.get(count * word, LIST)
    return [int.from_bytes(raw[at : at + word], "little") for at in range(0, len(raw), word)]


def held(guest: Guest) -> int:
    return guest.host.frames.nr_held(guest.dom.domid)


class TestDecrease:
    def test_frames_that_nothing_names_are_free(self, guest: Guest) -> None:
        mfns = spare(guest, 3)
        assert extents(guest, XenmemOp.DECREASE_RESERVATION, mfns) == 3
        assert all(guest.host.frames.owner[mfn] == OWNER_FREE for mfn in mfns)
        assert all(guest.host.m2p.get(mfn) is None for mfn in mfns)
        assert held(guest) == guest.dom.max_frames - 3

    def test_one_that_is_mapped_goes_with_its_mapping(self, guest: Guest) -> None:
        mfn = guest.dom.p2m[-1]
        assert extents(guest, XenmemOp.DECREASE_RESERVATION, [mfn]) == 1
        assert held(guest) == guest.dom.max_frames
        spare(guest)
        assert guest.host.frames.owner[mfn] == OWNER_FREE
        assert held(guest) == guest.dom.max_frames - 1

    def test_one_that_is_mapped_keeps_its_number_until_then(self, guest: Guest) -> None:
        mfn, pfn = guest.dom.p2m[-1], len(guest.dom.p2m) - 1
        extents(guest, XenmemOp.DECREASE_RESERVATION, [mfn])
        assert guest.host.m2p.get(mfn) == pfn
        spare(guest)
        assert guest.host.m2p.get(mfn) is None

    def test_a_pinned_one_stays_until_it_is_unpinned(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        guest.dom.page_tables.pin(mfn, FrameType.L1)
        assert extents(guest, XenmemOp.DECREASE_RESERVATION, [mfn]) == 1
        assert guest.host.frames.owner[mfn] == guest.dom.domid
        assert held(guest) == guest.dom.max_frames
        guest.dom.page_tables.unpin(mfn)
        assert guest.host.frames.owner[mfn] == OWNER_FREE
        assert held(guest) == guest.dom.max_frames - 1

    def test_the_root_in_use_stays(self, guest: Guest) -> None:
        root = guest.vcpu.root_mfn
        assert extents(guest, XenmemOp.DECREASE_RESERVATION, [root]) == 1
        frames = guest.host.frames
        assert frames.owner[root] == guest.dom.domid
        assert frames.type_count[root] == 2  # the pin's and the base pointer's
        assert frames.flags[root] & (ALLOCATED | PINNED) == PINNED
        assert guest.call(HypercallNr.XEN_VERSION, 0, 0)

    def test_it_stops_at_a_frame_that_is_not_its(self, guest: Guest) -> None:
        other = Guest(guest.machine, guest.width)
        xen = guest.host.frames.owned_by(OWNER_XEN)[0]
        for stranger in (other.dom.p2m[0], xen, 0, (1 << guest.width.bits) - 1):
            (mfn,) = spare(guest)
            guest.dom.p2m.pop()
            numbers = [mfn, stranger, guest.dom.p2m[7]]
            assert extents(guest, XenmemOp.DECREASE_RESERVATION, numbers) == 1
            assert guest.host.frames.owner[mfn] == OWNER_FREE

    def test_pages_of_xens_are_not_its_to_give(self, guest: Guest) -> None:
        shared = guest.dom.shared_info_mfn
        extents(guest, XenmemOp.DECREASE_RESERVATION, [shared])
        assert guest.host.frames.type_count[shared] >= 1
        assert guest.host.frames.owner[shared] == guest.dom.domid

    def test_the_console_ring_in_use_stays_its(self, guest: Guest) -> None:
        ring = guest.dom.console_mfn
        extents(guest, XenmemOp.DECREASE_RESERVATION, [ring])
        spare_pfn = guest.dom.p2m.index(ring)
        guest.call(HypercallNr.UPDATE_VA_MAPPING, page(guest, spare_pfn), 0, 0, 0)
        assert guest.host.frames.owner[ring] == guest.dom.domid


class TestPopulate:
    def test_numbers_become_frames(self, guest: Guest) -> None:
        extents(guest, XenmemOp.DECREASE_RESERVATION, spare(guest, 2))
        assert extents(guest, XenmemOp.POPULATE_PHYSMAP, [500, 501]) == 2
        mfns = listed(guest, 2)
        assert [guest.host.m2p.get(mfn) for mfn in mfns] == [500, 501]
        assert all(guest.host.frames.owner[mfn] == guest.dom.domid for mfn in mfns)
        assert held(guest) == guest.dom.max_frames

    def test_more_than_the_limit_is_not_given(self, guest: Guest) -> None:
        extents(guest, XenmemOp.DECREASE_RESERVATION, spare(guest, 2))
        assert extents(guest, XenmemOp.POPULATE_PHYSMAP, [1, 2, 3]) == 2

    def test_a_large_extent_is_contiguous(self, guest: Guest) -> None:
        extents(guest, XenmemOp.DECREASE_RESERVATION, spare(guest, 2))
        assert extents(guest, XenmemOp.POPULATE_PHYSMAP, [512], order=1) == 1
        (first,) = listed(guest, 1)
        assert first % 2 == 0
        assert [guest.host.m2p.get(first + idx) for idx in range(2)] == [512, 513]

    def test_a_list_that_cannot_be_written_is_not_done(self, guest: Guest) -> None:
        extents(guest, XenmemOp.DECREASE_RESERVATION, spare(guest))
        vaddr = guest.read_only((7).to_bytes(8, "little"))
        arg = XenMemoryReservation(vaddr, 1, 0, 0, DOMID_SELF)
        assert guest.op(HypercallNr.MEMORY_OP, XenmemOp.POPULATE_PHYSMAP, arg) == 0
        assert held(guest) == guest.dom.max_frames  # the frame stays, as in Xen

    def test_numbers_beyond_all_bounds_are_the_guests_affair(self, guest: Guest) -> None:
        extents(guest, XenmemOp.DECREASE_RESERVATION, spare(guest, 2))
        highest = (1 << guest.width.bits) - 1
        assert extents(guest, XenmemOp.POPULATE_PHYSMAP, [highest], order=1) in (0, 1)


class TestIncrease:
    def test_frames_without_numbers(self, guest: Guest) -> None:
        extents(guest, XenmemOp.DECREASE_RESERVATION, spare(guest))
        assert extents(guest, XenmemOp.INCREASE_RESERVATION, [0]) == 1
        (mfn,) = listed(guest, 1)
        assert guest.host.frames.owner[mfn] == guest.dom.domid
        assert guest.host.m2p.get(mfn) is None

    def test_nobody_needs_to_be_told(self, guest: Guest) -> None:
        extents(guest, XenmemOp.DECREASE_RESERVATION, spare(guest))
        arg = XenMemoryReservation(0, 1, 0, 0, DOMID_SELF)
        assert guest.op(HypercallNr.MEMORY_OP, XenmemOp.INCREASE_RESERVATION, arg) == 1


class TestRefusals:
    """None of these is an error: no extent is done."""

    @EXTENT_OPS
    def test_another_domain(self, guest: Guest, operation: int) -> None:
        Guest(guest.machine, guest.width)
        for domid in (2, 99, 0x7FF1, 0x7FF2, 0xFFFF):
            assert extents(guest, operation, [7], domid=domid) == 0

    @EXTENT_OPS
    def test_an_argument_that_is_not_there(self, guest: Guest, operation: int) -> None:
        for vaddr in (UNMAPPED, HOLE[guest.width].vaddr):
            assert guest.call(HypercallNr.MEMORY_OP, operation, vaddr) == 0

    @EXTENT_OPS
    def test_a_list_in_xens_region(self, guest: Guest, operation: int) -> None:
        arg = XenMemoryReservation(HOLE[guest.width].vaddr, 1, 0, 0, DOMID_SELF)
        assert guest.op(HypercallNr.MEMORY_OP, operation, arg) == 0

    @EXTENT_OPS
    def test_frames_below_a_page(self, guest: Guest, operation: int) -> None:
        arg = XenMemoryReservation(guest.data + LIST, 1, 0, 12, DOMID_SELF)  # 12 address bits
        assert guest.op(HypercallNr.MEMORY_OP, operation, arg) == 0

    @EXTENT_OPS
    def test_more_done_before_than_there_are(self, guest: Guest, operation: int) -> None:
        arg = XenMemoryReservation(guest.data + LIST, 1, 0, 0, DOMID_SELF)
        assert guest.op(HypercallNr.MEMORY_OP, operation | 5 << 6, arg) == 5


class TestQuestions:
    @pytest.mark.parametrize(
        "operation", [XenmemOp.CURRENT_RESERVATION, XenmemOp.MAXIMUM_RESERVATION]
    )
    def test_the_size_of_a_reservation(self, guest: Guest, operation: int) -> None:
        vaddr = guest.put(DOMID_SELF.to_bytes(2, "little"))
        assert guest.call(HypercallNr.MEMORY_OP, operation, vaddr) == guest.dom.max_frames

    def test_of_another_domain(self, guest: Guest) -> None:
        Guest(guest.machine, guest.width)
        for domid, errno in ((2, Errno.EPERM), (99, Errno.ESRCH)):
            vaddr = guest.put(domid.to_bytes(2, "little"))
            with refused(errno, r"."):
                guest.call(HypercallNr.MEMORY_OP, XenmemOp.CURRENT_RESERVATION, vaddr)

    def test_the_highest_pfn_is_what_the_guest_says(self, guest: Guest) -> None:
        vaddr = guest.put(DOMID_SELF.to_bytes(2, "little"))
        assert guest.call(HypercallNr.MEMORY_OP, XenmemOp.MAXIMUM_GPFN, vaddr) == -1

    def test_the_end_of_memory(self, guest: Guest) -> None:
        frames = guest.host.frames.nr_frames
        assert guest.call(HypercallNr.MEMORY_OP, XenmemOp.MAXIMUM_RAM_PAGE, 0) == frames

    def test_where_the_m2p_is(self, guest: Guest) -> None:
        arg = XenMachphysMapping()
        guest.op(HypercallNr.MEMORY_OP, XenmemOp.MACHPHYS_MAPPING, arg)
        assert arg.v_start == HOLE[guest.width].m2p_vaddr
        assert arg.max_mfn == guest.host.frames.nr_frames - 1

    def test_its_frames(self, guest: Guest) -> None:
        arg = XenMachphysMfnList(0xFFFF_FFFF, guest.data + LIST)
        guest.op(HypercallNr.MEMORY_OP, XenmemOp.MACHPHYS_MFN_LIST, arg)
        assert arg.nr_extents == 1
        assert listed(guest, 1) == guest.host.m2p.table_frames(guest.width)[:1]

    def test_the_memory_map(self, guest: Guest) -> None:
        arg = XenMemoryMap(4, guest.data + LIST)
        guest.op(HypercallNr.MEMORY_OP, XenmemOp.MEMORY_MAP, arg)
        assert arg.nr_entries == 1
        size = guest.dom.max_frames << 12
        assert guest.get(20, LIST) == bytes(8) + size.to_bytes(8, "little") + b"\1\0\0\0"

    def test_a_memory_map_of_nothing(self, guest: Guest) -> None:
        with refused(Errno.EINVAL, r"^no room for an entry"):
            guest.op(HypercallNr.MEMORY_OP, XenmemOp.MEMORY_MAP, XenMemoryMap(0, guest.data))

    def test_those_without_extents_have_none_done(self, guest: Guest) -> None:
        for operation in (XenmemOp.CURRENT_RESERVATION, XenmemOp.MEMORY_MAP):
            with refused(Errno.EINVAL, r"^1 extents were done"):
                guest.call(HypercallNr.MEMORY_OP, operation | 1 << 6, guest.data)

    @pytest.mark.parametrize(
        ("operation", "errno"),
        [
            (XenmemOp.ADD_TO_PHYSMAP, Errno.EACCES),
            (XenmemOp.ADD_TO_PHYSMAP_BATCH, Errno.EACCES),
            (XenmemOp.REMOVE_FROM_PHYSMAP, Errno.EACCES),
            (XenmemOp.MACHINE_MEMORY_MAP, Errno.EPERM),
            (XenmemOp.SET_MEMORY_MAP, Errno.EPERM),
            (XenmemOp.GET_VNUMAINFO, Errno.EOPNOTSUPP),
            (8, Errno.ENOSYS),
            (63, Errno.ENOSYS),
        ],
    )
    def test_what_is_not_there(self, guest: Guest, operation: int, errno: Errno) -> None:
        with refused(errno, r"."):
            guest.call(HypercallNr.MEMORY_OP, operation, guest.data)


def swap(
    guest: Guest,
    given: list[int],
    wanted: list[int],
    *,
    in_order: int = 0,
    out_order: int = 0,
    done: int = 0,
    domids: tuple[int, int] = (DOMID_SELF, DOMID_SELF),
) -> tuple[int | None, int]:
    """XENMEM_exchange; the result and how many were exchanged, refused or not."""
    word = guest.width.word_bytes
    lists = []
    for at, numbers in ((LIST, given), (2 * LIST, wanted)):
        lists.append(guest.put(b"".join(n.to_bytes(word, "little") for n in numbers), at))
    arg = XenMemoryExchange(
        XenMemoryReservation(lists[0], len(given), in_order, 0, domids[0]),
        XenMemoryReservation(lists[1], len(wanted), out_order, 0, domids[1]),
        done,
    )
    result = guest.op(HypercallNr.MEMORY_OP, XenmemOp.EXCHANGE, arg)
    return result, arg.nr_exchanged


def exchanged(guest: Guest) -> int:
    """nr_exchanged as it stands in the guest's argument."""
    shape = layout(XenMemoryExchange, guest.width)
    argument: XenMemoryExchange = shape.unpack_from(guest.get(shape.size))
    return argument.nr_exchanged


class TestExchange:
    def test_frames_for_as_many_others(self, guest: Guest) -> None:
        given, before = spare(guest, 3), held(guest)
        assert swap(guest, given, [500, 501, 502]) == (0, 3)
        raw = guest.get(3 * guest.width.word_bytes, 2 * LIST)
        size = guest.width.word_bytes
        new = [int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)]
        assert [guest.host.m2p.get(mfn) for mfn in new] == [500, 501, 502]
        assert all(guest.host.frames.owner[mfn] == guest.dom.domid for mfn in new)
        assert held(guest) == before
        assert len({*new, *given}) > 3

    def test_single_frames_for_some_that_lie_together(self, guest: Guest) -> None:
        assert swap(guest, spare(guest, 8), [512, 516], out_order=2) == (0, 8)
        size = guest.width.word_bytes
        first = int.from_bytes(guest.get(size, 2 * LIST), "little")
        assert first % 4 == 0
        assert [guest.host.m2p.get(first + at) for at in range(4)] == [512, 513, 514, 515]

    def test_and_back(self, guest: Guest) -> None:
        swap(guest, spare(guest, 4), [512], out_order=2)
        first = int.from_bytes(guest.get(guest.width.word_bytes, 2 * LIST), "little")
        assert swap(guest, [first], [600, 601, 602, 603], in_order=2) == (0, 1)
        assert guest.host.frames.owner[first] == OWNER_FREE

    def test_a_frame_in_use_stops_it_there(self, guest: Guest) -> None:
        one, other = spare(guest, 2)
        in_use = guest.spare_frame()
        with refused(Errno.EINVAL, r"cannot be exchanged$"):
            swap(guest, [one, in_use, other], [500, 501, 502])
        assert exchanged(guest) == 1
        owner = guest.host.frames.owner
        assert (owner[one], owner[other]) == (OWNER_FREE, guest.dom.domid)

    def test_a_chunk_that_fails_changes_nothing(self, guest: Guest) -> None:
        one, before = *spare(guest, 1), held(guest)
        for second in (one, guest.dom.shared_info_mfn, 0xFFFF_FFFF, guest.vcpu.root_mfn):
            with refused(Errno.EINVAL, r"cannot be exchanged$"):
                swap(guest, [one, second], [512], out_order=1)
            assert exchanged(guest) == 0
        assert held(guest) == before
        assert guest.host.frames.owner[one] == guest.dom.domid

    def test_sizes_must_agree(self, guest: Guest) -> None:
        with refused(Errno.EINVAL, r"^0x2 frames for 0x1$"):
            swap(guest, spare(guest, 2), [500])
        with refused(Errno.EINVAL, r"^3 done of 2"):
            swap(guest, spare(guest, 2), [500, 501], done=3)
        with refused(Errno.EPERM, r"^extents of order 10, 0$"):
            swap(guest, [0], [500], in_order=10)

    def test_what_was_done_is_passed_over(self, guest: Guest) -> None:
        given = spare(guest, 2)
        assert swap(guest, given, [500, 501], done=1) == (0, 2)
        owner = guest.host.frames.owner
        assert (owner[given[0]], owner[given[1]]) == (guest.dom.domid, OWNER_FREE)

    def test_ones_own_domain_or_with_privilege(self, guest: Guest) -> None:
        Guest(guest.machine, guest.width)
        with refused(Errno.EPERM, r"may not act on d2$"):
            swap(guest, [1], [2], domids=(2, 2))
        with refused(Errno.EINVAL, r"."):
            swap(guest, [1], [2], domids=(DOMID_SELF, 1))
        with refused(Errno.ESRCH, r"."):
            swap(guest, [1], [2], domids=(99, 99))
