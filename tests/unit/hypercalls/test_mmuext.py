"""mmuext_op: pins, base pointers, flushes, the LDT, whole frames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.types import DOMID_IO, DOMID_XEN
from hypervisor.abi.width import Width
from hypervisor.abi.xen import (
    MmuextCmd,
    MmuextOp,
)
from hypervisor.mm.frames import OWNER_XEN, FrameType
from hypervisor.mm.hole_map import HOLE
from tests.support.callers import UNMAPPED, Guest, guests, refused
from tests.support.page_tables import done, operate, page, spare

P, RW = 1, 3


@pytest.fixture(params=Width, ids=lambda width: width.name)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    with guests(request.param) as (only,):
        yield only


def op(command: int, arg1: int = 0, arg2: int = 0) -> MmuextOp:
    return MmuextOp(command, arg1, arg2)


class TestPins:
    def test_a_spare_frame_is_pinned_and_unpinned(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        assert operate(guest, op(MmuextCmd.PIN_L1_TABLE, mfn)) == 0
        assert guest.host.frames.type[mfn] == FrameType.L1
        assert operate(guest, op(MmuextCmd.UNPIN_TABLE, mfn)) == 0
        assert guest.host.frames.type_count[mfn] == 0

    def test_a_page_that_is_mapped_writable_is_not(self, guest: Guest) -> None:
        with refused(Errno.EINVAL, r"type WRITABLE"):
            operate(guest, op(MmuextCmd.PIN_L1_TABLE, guest.dom.p2m[3]))

    def test_a_level_that_the_guest_has_not_is_passed_over(self, guest: Guest) -> None:
        levels = guest.dom.page_tables.mode.levels
        for level in range(levels + 1, 5):
            assert operate(guest, op(MmuextCmd.PIN_L1_TABLE + level - 1, 0xBAD)) == 0

    def test_a_batch_says_how_far_it_came(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        with refused(Errno.EINVAL, r"pinned already$"):
            operate(guest, *[op(MmuextCmd.PIN_L1_TABLE, mfn)] * 3)
        assert done(guest) == 1

    def test_anothers_is_not(self, guest: Guest) -> None:
        other = Guest(guest.machine, guest.width)
        for command in (MmuextCmd.PIN_L1_TABLE, MmuextCmd.UNPIN_TABLE):
            with refused(Errno.EINVAL, r"not d1's$"):
                operate(guest, op(command, other.vcpu.root_mfn))
        with refused(Errno.EPERM, r"may not act on d2$"):
            operate(guest, op(MmuextCmd.UNPIN_TABLE, other.vcpu.root_mfn), foreign=2)

    @pytest.mark.parametrize("domid", [DOMID_IO, DOMID_XEN], ids=["DOMID_IO", "DOMID_XEN"])
    def test_nor_what_belongs_to_no_domain(self, guest: Guest, domid: int) -> None:
        xen = guest.host.frames.owned_by(OWNER_XEN)[0]
        with refused(Errno.EPERM, r"is not for d1$"):
            operate(guest, op(MmuextCmd.CLEAR_PAGE, xen), foreign=domid)
        guest.dom.privileged = True
        for command in (MmuextCmd.CLEAR_PAGE, MmuextCmd.PIN_L1_TABLE, MmuextCmd.UNPIN_TABLE):
            with refused(Errno.EINVAL, r"is no frame of Xen's to act on$"):
                operate(guest, op(command, xen), foreign=domid)
        with refused(Errno.EPERM, r"^TLB_FLUSH_ALL on behalf of another domain$"):
            operate(guest, op(MmuextCmd.TLB_FLUSH_ALL), foreign=domid)

    def test_a_privileged_domain_pins_for_another(self, guest: Guest) -> None:
        other = Guest(guest.machine, guest.width)
        (mfn,) = spare(other)
        guest.dom.privileged = True
        assert operate(guest, op(MmuextCmd.PIN_L1_TABLE, mfn), foreign=2) == 0
        with refused(Errno.EPERM, r"^NEW_BASEPTR on behalf of another domain$"):
            operate(guest, op(MmuextCmd.NEW_BASEPTR, other.vcpu.root_mfn), foreign=2)


class TestBasePointers:
    def test_a_copy_of_the_root_is_a_root(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        guest.host.memory.frame(mfn)[:] = guest.host.memory.frame(guest.vcpu.root_mfn)
        old = guest.vcpu.root_mfn
        if guest.width is Width.X86_32P:
            with refused(Errno.EINVAL, r"is slot 3 of another L3 table already$"):
                operate(guest, op(MmuextCmd.NEW_BASEPTR, mfn))
            return
        assert operate(guest, op(MmuextCmd.NEW_BASEPTR, mfn)) == 0
        assert guest.vcpu.root_mfn == mfn
        assert guest.enter().current.state.cr3 == mfn << 12
        assert guest.host.frames.type_count[old] == 1  # its pin

    def test_what_is_no_root_is_refused(self, guest: Guest) -> None:
        old = guest.vcpu.root_mfn
        for mfn in (guest.dom.p2m[3], 0, 1 << 50 if guest.width.is_64 else 0xFFFF_FFFF):
            with refused(Errno.EINVAL, r"."):
                operate(guest, op(MmuextCmd.NEW_BASEPTR, mfn))
        assert guest.vcpu.root_mfn == old

    def test_a_users_root_is_for_64_bit_guests(self, guest: Guest) -> None:
        root = guest.vcpu.root_mfn
        if not guest.width.is_64:
            with refused(Errno.EINVAL, r"one table for kernel and user$"):
                operate(guest, op(MmuextCmd.NEW_USER_BASEPTR, root))
            return
        assert operate(guest, op(MmuextCmd.NEW_USER_BASEPTR, root)) == 0
        assert guest.host.frames.type_count[root] == 3
        assert operate(guest, op(MmuextCmd.NEW_USER_BASEPTR, 0)) == 0
        assert guest.host.frames.type_count[root] == 2


class TestOtherOperations:
    def test_unknown_ones(self, guest: Guest) -> None:
        for command in (14, 21, 0xFFFF_FFFF):
            with refused(Errno.ENOSYS, rf"^mmuext_op command {command} is unknown$"):
                operate(guest, op(command))

    @pytest.mark.parametrize(
        ("command", "errno"),
        [
            (MmuextCmd.FLUSH_CACHE, Errno.EACCES),
            (MmuextCmd.FLUSH_CACHE_GLOBAL, Errno.EINVAL),
            (MmuextCmd.MARK_SUPER, Errno.EOPNOTSUPP),
            (MmuextCmd.UNMARK_SUPER, Errno.EOPNOTSUPP),
        ],
        ids=lambda value: value.name,
    )
    def test_those_that_are_not_there(self, guest: Guest, command: MmuextCmd, errno: Errno) -> None:
        with refused(errno, r"."):
            operate(guest, op(command))

    def test_flushes(self, guest: Guest) -> None:
        guest.enter()
        before = guest.host.frames.epoch
        assert operate(guest, op(MmuextCmd.TLB_FLUSH_LOCAL), op(MmuextCmd.TLB_FLUSH_ALL)) == 0
        assert guest.host.frames.epoch == before + 1  # one for both

    def test_one_page_of_xens_is_not_flushed_and_no_error(self, guest: Guest) -> None:
        for vaddr in (HOLE[guest.width].vaddr, 1 << 47, page(guest, 3)):
            word = vaddr & ((1 << guest.width.bits) - 1)
            assert operate(guest, op(MmuextCmd.INVLPG_LOCAL, word)) == 0

    def test_a_set_of_vcpus_must_be_readable(self, guest: Guest) -> None:
        for command in (MmuextCmd.TLB_FLUSH_MULTI, MmuextCmd.INVLPG_MULTI):
            with refused(Errno.EINVAL, r"is not mapped$"):
                operate(guest, op(command, page(guest, 3), UNMAPPED))
            assert operate(guest, op(command, page(guest, 3), guest.data)) == 0

    def test_a_frame_is_cleared_and_copied(self, guest: Guest) -> None:
        first, second = guest.dom.p2m[3:5]
        guest.host.memory.frame(first)[:5] = b"hello"
        assert operate(guest, op(MmuextCmd.COPY_PAGE, second, first)) == 0
        assert bytes(guest.host.memory.frame(second)[:5]) == b"hello"
        assert operate(guest, op(MmuextCmd.CLEAR_PAGE, first)) == 0
        assert not any(guest.host.memory.frame(first))

    def test_but_no_table_and_nobody_elses(self, guest: Guest) -> None:
        xen = guest.host.frames.owned_by(OWNER_XEN)[0]
        for mfn in (guest.vcpu.root_mfn, xen, 0xFFFF_FFFF):
            with refused(Errno.EINVAL, r"."):
                operate(guest, op(MmuextCmd.CLEAR_PAGE, mfn))
            with refused(Errno.EINVAL, r"."):
                operate(guest, op(MmuextCmd.COPY_PAGE, mfn, guest.dom.p2m[3]))
        with refused(Errno.EINVAL, r"is Xen's"):
            operate(guest, op(MmuextCmd.COPY_PAGE, guest.dom.p2m[3], xen))

    @pytest.mark.parametrize(("entries", "offset"), [(8193, 0), (1, 8), (0xFFFF_FFFF, 0)])
    def test_an_ldt_out_of_bounds(self, guest: Guest, entries: int, offset: int) -> None:
        with refused(Errno.EINVAL, r"^LDT at"):
            operate(guest, op(MmuextCmd.SET_LDT, page(guest, 3) + offset, entries))

    def test_an_ldt_in_xens_region(self, guest: Guest) -> None:
        with refused(Errno.EINVAL, r"lies in Xen's region$"):
            operate(guest, op(MmuextCmd.SET_LDT, HOLE[guest.width].vaddr, 1))

    def test_an_ldt_of_nothing_may_be_anywhere(self, guest: Guest) -> None:
        assert operate(guest, op(MmuextCmd.SET_LDT, HOLE[guest.width].vaddr + 5, 0)) == 0
        assert guest.vcpu.ldt_entries == 0
