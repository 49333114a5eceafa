"""set_gdt and update_descriptor: tables that the guest cannot write behind Xen's back."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.xen import HypercallNr
from hypervisor.mm.frames import OWNER_XEN, FrameType
from tests.support.callers import UNMAPPED, Guest, refused
from tests.support.page_tables import map_at, page, spare

DATA_3 = 0x00CF_F300_0000_FFFF
KERNEL_DATA = 0x00CF_9300_0000_FFFF
LDT = 0x0000_8200_0000_0000


def set_gdt(guest: Guest, mfns: list[int], entries: int) -> int | None:
    word = guest.width.word_bytes
    vaddr = guest.put(b"".join(mfn.to_bytes(word, "little") for mfn in mfns))
    return guest.call(HypercallNr.SET_GDT, vaddr, entries)


def update(guest: Guest, maddr: int, desc: int) -> int | None:
    if guest.width.is_64:
        return guest.call(HypercallNr.UPDATE_DESCRIPTOR, maddr, desc, 0, 0)
    words = (maddr & 0xFFFF_FFFF, maddr >> 32, desc & 0xFFFF_FFFF, desc >> 32)
    return guest.call(HypercallNr.UPDATE_DESCRIPTOR, *words)


def descriptor(guest: Guest, mfn: int, slot: int) -> int:
    return guest.host.memory.u64[(mfn << 9) + slot]


class TestSetGdt:
    def test_frames_become_a_table(self, guest: Guest) -> None:
        mfns = spare(guest, 2)
        assert set_gdt(guest, mfns, 513) == 0
        assert guest.vcpu.gdt_frames == mfns
        assert all(guest.host.frames.type[mfn] == FrameType.SEGDESC for mfn in mfns)

    def test_its_descriptors_are_made_harmless(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        guest.host.memory.u64[(mfn << 9) + 3] = KERNEL_DATA
        set_gdt(guest, [mfn], 512)
        ring = 3 if guest.width.is_64 else 1
        assert descriptor(guest, mfn, 3) == KERNEL_DATA | ring << 45

    def test_the_old_table_is_let_go(self, guest: Guest) -> None:
        first, second = spare(guest, 2)
        set_gdt(guest, [first], 1)
        set_gdt(guest, [second], 1)
        assert guest.host.frames.type_count[first] == 0
        assert set_gdt(guest, [], 0) == 0
        assert guest.host.frames.type_count[second] == 0

    def test_one_frame_may_be_all_pages(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        assert set_gdt(guest, [mfn] * 14, 7168) == 0
        assert guest.host.frames.type_count[mfn] == 14

    @pytest.mark.parametrize("entries", [7169, 0xFFFF_FFFF])
    def test_xens_entries_are_xens(self, guest: Guest, entries: int) -> None:
        with refused(Errno.EINVAL, r"Xen's own begin at 7168$"):
            set_gdt(guest, [], entries)

    def test_a_list_that_is_not_there(self, guest: Guest) -> None:
        with refused(Errno.EFAULT, r"is not mapped$"):
            guest.call(HypercallNr.SET_GDT, UNMAPPED, 1)

    def test_a_page_that_is_mapped_writable(self, guest: Guest) -> None:
        with refused(Errno.EINVAL, r"not usable as SEGDESC$"):
            set_gdt(guest, [guest.dom.p2m[3]], 1)

    def test_a_table_or_somebody_elses(self, guest: Guest) -> None:
        xen = guest.host.frames.owned_by(OWNER_XEN)[0]
        for mfn in (guest.vcpu.root_mfn, xen, 0, 0xFFFF_FFFF):
            with refused(Errno.EINVAL, r"."):
                set_gdt(guest, [mfn], 1)

    def test_one_bad_frame_changes_nothing(self, guest: Guest) -> None:
        old, good = spare(guest, 2)
        set_gdt(guest, [old], 1)
        with refused(Errno.EINVAL, r"."):
            set_gdt(guest, [good, guest.vcpu.root_mfn], 513)
        assert guest.vcpu.gdt_frames == [old]
        assert guest.host.frames.type_count[good] == 0

    def test_one_bad_descriptor_refuses_the_frame_as_it_is(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        words = guest.host.memory.u64
        words[mfn << 9], words[(mfn << 9) + 511] = KERNEL_DATA, LDT
        with refused(Errno.EINVAL, r"a system segment$"):
            set_gdt(guest, [mfn], 1)
        assert descriptor(guest, mfn, 0) == KERNEL_DATA


class TestUpdateDescriptor:
    def test_in_a_table_in_use(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        set_gdt(guest, [mfn], 512)
        assert update(guest, (mfn << 12) + 8, KERNEL_DATA) == 0
        assert descriptor(guest, mfn, 1) >> 45 & 3 == (3 if guest.width.is_64 else 1)

    def test_in_ordinary_memory(self, guest: Guest) -> None:
        mfn = guest.dom.p2m[3]
        assert update(guest, mfn << 12, DATA_3) == 0
        assert descriptor(guest, mfn, 0) == DATA_3

    def test_a_former_table_is_checked_again(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        set_gdt(guest, [mfn], 1)
        set_gdt(guest, [], 0)
        guest.host.memory.u64[(mfn << 9) + 9] = LDT
        with refused(Errno.EINVAL, r"a system segment$"):
            update(guest, mfn << 12, DATA_3)

    def test_a_former_table_that_is_memory_again(self, guest: Guest) -> None:
        (mfn,) = spare(guest)
        set_gdt(guest, [mfn], 1)
        set_gdt(guest, [], 0)
        map_at(guest, page(guest, 3), mfn << 12 | 3)
        assert update(guest, mfn << 12, DATA_3) == 0

    def test_not_between_descriptors(self, guest: Guest) -> None:
        with refused(Errno.EINVAL, r"is not aligned$"):
            update(guest, (guest.dom.p2m[3] << 12) + 4, DATA_3)

    def test_not_in_a_page_table(self, guest: Guest) -> None:
        with refused(Errno.EINVAL, r"not usable as WRITABLE$"):
            update(guest, guest.vcpu.root_mfn << 12, DATA_3)

    def test_not_in_somebody_elses(self, guest: Guest) -> None:
        for mfn in (guest.host.frames.owned_by(OWNER_XEN)[0], 0, 1 << 40):
            with refused(Errno.EINVAL, r"not d1's$"):
                update(guest, mfn << 12, DATA_3)

    def test_not_a_system_segment(self, guest: Guest) -> None:
        with refused(Errno.EINVAL, r"a system segment$"):
            update(guest, guest.dom.p2m[3] << 12, LDT)
