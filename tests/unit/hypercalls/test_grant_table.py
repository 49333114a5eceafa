"""grant_table_op: setting a table up, and what comes of bad arguments."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.grant_table import (
    GntStatus,
    GnttabGetVersion,
    GnttabOp,
    GnttabQuerySize,
    GnttabSetupTable,
    GnttabSetVersion,
)
from hypervisor.abi.layout import layout
from hypervisor.abi.types import DOMID_SELF
from hypervisor.abi.xen import HypercallNr
from hypervisor.grants.table import MAX_FRAMES
from hypervisor.mm.frames import LENT
from tests.support.callers import UNMAPPED, Guest, refused
from tests.support.page_tables import map_at, page

LIST = 256  # offset in the data page


def grant_op(guest: Guest, operation: int, argument: object, count: int = 1) -> int | None:
    shape = layout(type(argument), guest.width)
    vaddr = guest.put(shape.pack(argument))
    result = guest.call(HypercallNr.GRANT_TABLE_OP, operation, vaddr, count)
    after = shape.unpack_from(guest.get(shape.size))
    for name in shape.field_names:
        setattr(argument, name, getattr(after, name))
    return result


def setup(
    guest: Guest, nr_frames: int, *, dom: int = DOMID_SELF, frame_list: int | None = None
) -> int:
    vaddr = guest.data + LIST if frame_list is None else frame_list
    arg = GnttabSetupTable(dom, nr_frames, 99, vaddr)
    assert grant_op(guest, GnttabOp.SETUP_TABLE, arg) == 0
    return arg.status


def listed(guest: Guest, count: int) -> list[int]:
    word = guest.width.word_bytes
    raw = guest.get(count * word, LIST)
    return [int.from_bytes(raw[at : at + word], "little") for at in range(0, len(raw), word)]


class TestSetup:
    def test_the_frames_are_listed_and_the_guest_may_write_them(self, guest: Guest) -> None:
        assert setup(guest, 3) == GntStatus.OKAY
        for mfn in listed(guest, 3):
            assert guest.host.frames.flags[mfn] & LENT
            assert map_at(guest, page(guest, 3), mfn << 12 | 3) == 0

    def test_they_are_not_of_its_reservation(self, guest: Guest) -> None:
        setup(guest, MAX_FRAMES)
        assert guest.host.frames.nr_held(guest.dom.domid) == guest.dom.max_frames

    def test_it_grows_and_does_not_shrink(self, guest: Guest) -> None:
        setup(guest, 2)
        first = listed(guest, 2)
        setup(guest, 4)
        assert listed(guest, 2) == first
        setup(guest, 1)
        assert len(guest.host.grants.tables[guest.dom.domid].frames) == 4

    @pytest.mark.parametrize("nr_frames", [MAX_FRAMES + 1, 0xFFFF_FFFF])
    def test_not_beyond_the_limit(self, guest: Guest, nr_frames: int) -> None:
        assert setup(guest, nr_frames) == GntStatus.GENERAL_ERROR

    def test_not_beyond_the_machine(self, guest: Guest) -> None:
        frames = guest.host.frames
        frames.allocate_xen(frames.nr_free - 2)
        assert setup(guest, 3) == GntStatus.GENERAL_ERROR
        assert frames.nr_free == 2

    def test_a_list_that_cannot_be_written(self, guest: Guest) -> None:
        assert setup(guest, 1, frame_list=UNMAPPED) == GntStatus.BAD_VIRT_ADDR

    def test_another_domain(self, guest: Guest) -> None:
        Guest(guest.machine, guest.width)
        assert setup(guest, 1, dom=2) == GntStatus.PERMISSION_DENIED
        assert setup(guest, 1, dom=99) == GntStatus.BAD_DOMAIN


class TestQuestions:
    def test_the_size(self, guest: Guest) -> None:
        arg = GnttabQuerySize(DOMID_SELF)
        grant_op(guest, GnttabOp.QUERY_SIZE, arg)
        assert (arg.nr_frames, arg.max_nr_frames, arg.status) == (1, MAX_FRAMES, GntStatus.OKAY)
        setup(guest, 5)
        grant_op(guest, GnttabOp.QUERY_SIZE, arg)
        assert arg.nr_frames == 5

    def test_the_size_of_another_domains(self, guest: Guest) -> None:
        arg = GnttabQuerySize(99)
        grant_op(guest, GnttabOp.QUERY_SIZE, arg)
        assert arg.status == GntStatus.BAD_DOMAIN

    def test_the_version(self, guest: Guest) -> None:
        arg = GnttabGetVersion(DOMID_SELF, 0, 99)
        assert grant_op(guest, GnttabOp.GET_VERSION, arg, count=0) == 0
        assert arg.version == 1

    def test_the_version_of_another_domains(self, guest: Guest) -> None:
        Guest(guest.machine, guest.width)
        for dom, errno in ((2, Errno.EPERM), (99, Errno.ESRCH)):
            with refused(errno, r"."):
                grant_op(guest, GnttabOp.GET_VERSION, GnttabGetVersion(dom, 0))

    def test_version_1_may_be_chosen(self, guest: Guest) -> None:
        assert grant_op(guest, GnttabOp.SET_VERSION, GnttabSetVersion(1)) == 0

    def test_version_2_is_not_offered_and_the_guest_learns_which_is(self, guest: Guest) -> None:
        arg = GnttabSetVersion(2)
        assert grant_op(guest, GnttabOp.SET_VERSION, arg) == -Errno.ENOSYS
        assert arg.version == 1

    def test_there_is_no_version_3(self, guest: Guest) -> None:
        with refused(Errno.EINVAL, r"^grant table version 3 does not exist$"):
            grant_op(guest, GnttabOp.SET_VERSION, GnttabSetVersion(3))


class TestCounts:
    @pytest.mark.parametrize("count", [0, 2, 0x7FFF_FFFF])
    @pytest.mark.parametrize("operation", [GnttabOp.SETUP_TABLE, GnttabOp.QUERY_SIZE])
    def test_what_is_done_once(self, guest: Guest, operation: int, count: int) -> None:
        with refused(Errno.EINVAL, r"of an operation that is done once$"):
            guest.call(HypercallNr.GRANT_TABLE_OP, operation, guest.data, count)

    def test_a_negative_count(self, guest: Guest) -> None:
        with refused(Errno.EINVAL, r"a negative int$"):
            guest.call(HypercallNr.GRANT_TABLE_OP, GnttabOp.COPY, guest.data, 0x8000_0000)


@pytest.mark.parametrize(
    ("operation", "errno"),
    [(GnttabOp.COPY, Errno.ENOSYS), (99, Errno.ENOSYS), (0x1002, Errno.EINVAL)],
)
def test_what_is_not_there(guest: Guest, operation: int, errno: Errno) -> None:
    with refused(errno, r"."):
        guest.call(HypercallNr.GRANT_TABLE_OP, operation, guest.data, 1)


def test_an_argument_that_is_not_there(guest: Guest) -> None:
    with refused(Errno.EFAULT, r"is not mapped$"):
        guest.call(HypercallNr.GRANT_TABLE_OP, GnttabOp.QUERY_SIZE, UNMAPPED, 1)
