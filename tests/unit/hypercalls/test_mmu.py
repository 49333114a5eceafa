"""mmu_update and update_va_mapping: whose tables, whose frames, what is reported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.types import DOMID_IO, DOMID_SELF, DOMID_XEN
from hypervisor.abi.width import Width
from hypervisor.abi.xen import (
    UVMF_ALL,
    UVMF_INVLPG,
    UVMF_TLB_FLUSH,
    HypercallNr,
    MmuCommand,
)
from hypervisor.mm.frames import OWNER_XEN, FrameType
from hypervisor.mm.hole_map import HOLE
from tests.support.callers import UNMAPPED, Guest, guests, refused
from tests.support.page_tables import done, leaf, map_at, page, spare, update

P, RW = 1, 3


@pytest.fixture(params=Width, ids=lambda width: width.name)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    with guests(request.param) as (only,):
        yield only


class TestUpdates:
    def test_a_leaf_is_changed(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        maddr, _ = leaf(guest, page(guest, 3))
        assert update(guest, (maddr, mfn << 12 | P)) == 0
        assert leaf(guest, page(guest, 3))[1] & ~0x0010_0000_0000_0FFF == mfn << 12
        assert done(guest) == 1

    def test_ordinary_memory_is_written(self, guest: Guest) -> None:
        size = guest.dom.page_tables.mode.entry_bytes
        maddr = (guest.dom.p2m[3] << 12) + 8 * size
        memory = guest.host.memory
        before = memory.read(maddr + size, 8)
        update(guest, (maddr, 0x1122_3344_5566_7788))
        assert memory.read(maddr, size) == (0x1122_3344_5566_7788).to_bytes(8, "little")[:size]
        assert memory.read(maddr + size, 8) == before

    def test_the_accessed_and_dirty_bits_stay_on_request(self, guest: Guest) -> None:
        vaddr = page(guest, 3)
        guest.enter().mem.write(vaddr, b"x")
        maddr, entry = leaf(guest, vaddr)
        update(guest, (maddr | MmuCommand.PT_UPDATE_PRESERVE_AD, entry & ~0x60))
        assert leaf(guest, vaddr)[1] & 0x60 == 0x60

    def test_a_batch_stops_at_the_first_refusal_and_says_where(self, guest: Guest) -> None:
        maddr, entry = leaf(guest, page(guest, 3))
        xen = guest.host.frames.owned_by(OWNER_XEN)[0]
        with refused(Errno.EBUSY, r"is Xen's"):
            update(guest, (maddr, 0), (maddr, xen << 12 | P), (maddr, entry))
        assert done(guest) == 1
        assert leaf(guest, page(guest, 3))[1] == 0

    def test_a_done_count_that_cannot_be_written_is_not_written(self, guest: Guest) -> None:
        vaddr = guest.put(bytes(16))
        for nowhere in (UNMAPPED, HOLE[guest.width].vaddr):
            with refused(Errno.EINVAL, r"mfn 0x0 is"):
                guest.call(HypercallNr.MMU_UPDATE, vaddr, 1, nowhere, DOMID_SELF)
            assert guest.call(HypercallNr.MMU_UPDATE, vaddr, 0, nowhere, DOMID_SELF) == 0

    def test_requests_in_xens_region_are_not_looked_at(self, guest: Guest) -> None:
        with refused(Errno.EFAULT, r"reach Xen's region$"):
            guest.call(HypercallNr.MMU_UPDATE, HOLE[guest.width].vaddr, 1, 0, DOMID_SELF)

    def test_requests_that_are_not_mapped_fault(self, guest: Guest) -> None:
        with refused(Errno.EFAULT, r"is not mapped$"):
            guest.call(HypercallNr.MMU_UPDATE, UNMAPPED, 1, 0, DOMID_SELF)

    def test_unknown_commands(self, guest: Guest) -> None:
        maddr, _ = leaf(guest, page(guest, 3))
        for command in range(4, guest.dom.page_tables.mode.entry_bytes):
            with refused(Errno.ENOSYS, rf"^mmu_update command {command} is unknown$"):
                update(guest, (maddr + command, 0))

    def test_a_frame_of_anothers_is_no_table_of_ours(self, guest: Guest) -> None:
        other = Guest(guest.machine, guest.width)
        for mfn in (other.vcpu.root_mfn, guest.host.frames.owned_by(OWNER_XEN)[0], 0, 1 << 51):
            with refused(Errno.EINVAL, r"not d1's$"):
                update(guest, (mfn << 12, 0))

    def test_a_descriptor_page_is_not_written(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        guest.dom.page_tables.get_page_and_type(mfn, FrameType.SEGDESC)
        with refused(Errno.EINVAL, r"type SEGDESC"):
            update(guest, (mfn << 12, 0))
        guest.dom.page_tables.put_page_and_type(mfn)


def test_the_upper_half_of_a_two_level_entry_is_dropped() -> None:
    with guests(Width.X86_32) as (guest,):
        maddr, entry = leaf(guest, page(guest, 3))
        update(guest, (maddr, 0xFFFF_FFFF_0000_0000 | entry))
        assert leaf(guest, page(guest, 3))[1] == entry


class TestMachphys:
    def test_the_number_of_an_own_frame_is_set(self, guest: Guest) -> None:
        mfn = guest.dom.p2m[5]
        update(guest, (mfn << 12 | MmuCommand.MACHPHYS_UPDATE, 0x77))
        assert guest.host.m2p.get(mfn) == 0x77

    def test_numbers_beyond_32_bits_are_taken(self, guest: Guest) -> None:
        mfn = guest.dom.p2m[5]
        update(guest, (mfn << 12 | MmuCommand.MACHPHYS_UPDATE, 1 << 40))
        assert guest.host.m2p.get(mfn) == 1 << 40

    def test_not_of_anothers(self, guest: Guest) -> None:
        for mfn in (guest.host.frames.owned_by(OWNER_XEN)[0], 1 << 50):
            with refused(Errno.EINVAL, r"not d1's$"):
                update(guest, (mfn << 12 | MmuCommand.MACHPHYS_UPDATE, 0))


class TestForeign:
    def test_an_unknown_domain(self, guest: Guest) -> None:
        with refused(Errno.ESRCH, r"there is no domain 0x63$"):
            update(guest, (0, 0), foreign=99)

    def test_itself_by_number(self, guest: Guest) -> None:
        with refused(Errno.ESRCH, r"^d1 names itself as a foreign domain$"):
            update(guest, (0, 0), foreign=1)

    def test_another_one_without_privilege(self, guest: Guest) -> None:
        Guest(guest.machine, guest.width)
        with refused(Errno.EPERM, r"^d1 may not act on d2$"):
            update(guest, (0, 0), foreign=2)

    def test_no_updates_need_no_permission(self, guest: Guest) -> None:
        Guest(guest.machine, guest.width)
        assert update(guest, foreign=2) == 0
        assert update(guest, foreign=3 << 16 | DOMID_SELF) == 0
        with refused(Errno.ESRCH, r"there is no domain 0x63$"):
            update(guest, foreign=99)

    def test_devices_there_are_none(self, guest: Guest) -> None:
        maddr, _ = leaf(guest, page(guest, 3))
        with refused(Errno.EBUSY, r"is d1's"):
            update(guest, (maddr, guest.dom.p2m[9] << 12 | P), foreign=DOMID_IO)
        with refused(Errno.EPERM, r"is beyond the machine's"):
            update(guest, (maddr, 0xF_F000 << 12 | P), foreign=DOMID_IO)

    def test_xens_frames_are_nobodys(self, guest: Guest) -> None:
        maddr, _ = leaf(guest, page(guest, 3))
        xen = guest.host.frames.owned_by(OWNER_XEN)[0]
        with refused(Errno.EPERM, r"^Xen's frames are not for d1$"):
            update(guest, (maddr, xen << 12 | P), foreign=DOMID_XEN)
        guest.dom.privileged = True
        for mfn in (xen, guest.dom.p2m[9]):
            with refused(Errno.EBUSY, rf"^mfn {mfn:#x} is (Xen's|d1's), not d"):
                update(guest, (maddr, mfn << 12 | P), foreign=DOMID_XEN)

    def test_a_privileged_domain_maps_anothers_frame(self, guest: Guest) -> None:
        guest.dom.privileged = True
        other = Guest(guest.machine, guest.width)
        frame = other.dom.p2m[5]
        maddr, _ = leaf(guest, page(guest, 3))
        assert update(guest, (maddr, frame << 12 | RW), foreign=2) == 0
        guest.enter().mem.write(page(guest, 3), b"hello")
        assert other.enter().mem.read(page(other, 5), 5) == b"hello"

    def test_but_only_by_leaves(self, guest: Guest) -> None:
        guest.dom.privileged = True
        other = Guest(guest.machine, guest.width)
        root = guest.vcpu.root_mfn
        with refused(Errno.EINVAL, r"tables are not shared$"):
            update(guest, (root << 12, other.dom.p2m[5] << 12 | P), foreign=2)

    def test_anothers_tables(self, guest: Guest) -> None:
        Guest(guest.machine, guest.width)
        maddr, entry = leaf(guest, page(guest, 3))
        assert update(guest, (maddr, entry), foreign=2 << 16 | DOMID_SELF) == 0  # its own
        with refused(Errno.EPERM, r"^d1 may not act on d2$"):
            update(guest, (maddr, entry), foreign=3 << 16 | DOMID_SELF)
        with refused(Errno.ESRCH, r"there is no domain"):
            update(guest, (maddr, entry), foreign=0x99 << 16 | DOMID_SELF)


class TestVaMapping:
    def test_a_page_is_mapped(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        assert map_at(guest, page(guest, 3), mfn << 12 | RW, UVMF_INVLPG) == 0
        assert guest.enter().mem.translate(page(guest, 3), write=True) >> 12 == mfn

    def test_not_in_xens_region(self, guest: Guest) -> None:
        for vaddr in (HOLE[guest.width].vaddr, HOLE[guest.width].windows_vaddr):
            with refused(Errno.EINVAL, r"is in Xen's region$"):
                map_at(guest, vaddr, 0)

    def test_not_where_there_is_no_table(self, guest: Guest) -> None:
        with refused(Errno.EINVAL, r"has no L1 table$"):
            map_at(guest, UNMAPPED, 0)

    def test_not_at_an_address_that_is_none(self, guest: Guest) -> None:
        vaddr = 1 << 47 if guest.width.is_64 else 0xFFFF_F000
        with refused(Errno.EINVAL, r"is in Xen's region$"):
            map_at(guest, vaddr, 0)

    def test_a_table_stays_read_only(self, guest: Guest) -> None:
        with refused(Errno.EBUSY, r"cannot map it writable$"):
            map_at(guest, page(guest, 3), guest.vcpu.root_mfn << 12 | RW)

    def test_the_gdt_stays_read_only(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        frames = guest.put(mfn.to_bytes(guest.width.word_bytes, "little"))
        guest.call(HypercallNr.SET_GDT, frames, 512)
        with refused(Errno.EBUSY, r"type SEGDESC x1.*cannot map it writable$"):
            map_at(guest, page(guest, 3), mfn << 12 | RW)
        assert map_at(guest, page(guest, 3), mfn << 12 | P) == 0

    def test_a_set_of_vcpus_that_cannot_be_read_faults_after_the_change(self, guest: Guest) -> None:
        for kind in (UVMF_TLB_FLUSH, UVMF_INVLPG):
            with refused(Errno.EFAULT, r"is not mapped$"):
                map_at(guest, page(guest, 3), 0, kind | UNMAPPED)
            assert leaf(guest, page(guest, 3))[1] == 0
            assert map_at(guest, page(guest, 3), 0, kind | UVMF_ALL) == 0

    def test_anothers_frame_needs_its_name_and_privilege(self, guest: Guest) -> None:
        other = Guest(guest.machine, guest.width)
        entry = other.dom.p2m[5] << 12 | P
        with refused(Errno.EBUSY, r"is d2's, not d1's$"):
            map_at(guest, page(guest, 3), entry)
        with refused(Errno.EPERM, r"may not act on d2$"):
            map_at(guest, page(guest, 3), entry, foreign=2)
        guest.dom.privileged = True
        assert map_at(guest, page(guest, 3), entry, foreign=2) == 0
