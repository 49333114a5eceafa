"""Validation: what an entry may name, and what that holds (Xen's arch/x86/mm.c)."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.width import Width
from hypervisor.mm import pagetables
from hypervisor.mm.entries import DISALLOWED, PTE_GUEST_KERNEL, TYPE_OF_LEVEL
from hypervisor.mm.frames import OWNER_FREE, PINNED, FrameType
from hypervisor.x86.paging import PTE_A, PTE_D, PTE_G, PTE_NX, PTE_PSE, PTE_RW, PTE_US
from tests.support.small_machine import OWNER, RW, P, SmallMachine, refused

PAE_AND_LONG = pytest.mark.parametrize(
    "small", [Width.X86_32P, Width.X86_64], indirect=True, ids=lambda width: width.name
)
ONLY_PAE = pytest.mark.parametrize("small", [Width.X86_32P], indirect=True, ids=["X86_32P"])
ONLY_LONG = pytest.mark.parametrize("small", [Width.X86_64], indirect=True, ids=["X86_64"])
ONLY_LEGACY = pytest.mark.parametrize("small", [Width.X86_32], indirect=True, ids=["X86_32"])


def pinned_l1(small: SmallMachine) -> int:
    """An empty leaf table."""
    small.tables.pin(small.own[0], FrameType.L1)
    return small.own[0]


class TestTypes:
    def test_a_mapped_page_is_no_table(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW)
        with refused(Errno.EINVAL, rf"^mfn {page:#x} is d1's: type WRITABLE x1.*not usable as L1"):
            small.tables.pin(page, FrameType.L1)

    def test_a_table_is_not_mapped_writable(self, small: SmallMachine) -> None:
        l1 = pinned_l1(small)
        with refused(Errno.EBUSY, rf"^mfn {l1:#x} .*type L1.*cannot map it writable$"):
            small.update(l1, 0, l1 << 12 | RW)
        assert small.read(l1, 0) == 0

    def test_a_table_is_mapped_read_only(self, small: SmallMachine) -> None:
        l1 = pinned_l1(small)
        small.update(l1, 0, l1 << 12 | P)
        assert small.counts(l1) == (FrameType.L1, 1, 3)
        small.audit()

    def test_a_descriptor_page_is_not_mapped_writable(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.tables.get_page_and_type(page, FrameType.SEGDESC)
        with refused(Errno.EBUSY, r"type SEGDESC x1.*cannot map it writable$"):
            small.update(l1, 0, page << 12 | RW)

    def test_a_type_changes_when_nothing_needs_it(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW)
        small.update(l1, 0, 0)
        small.tables.pin(page, FrameType.L1)
        assert small.counts(page)[0] is FrameType.L1

    def test_a_type_change_flushes_what_the_tlb_may_still_know(self, small: SmallMachine) -> None:
        flushes: list[int] = []
        small.frames.flush_needed = lambda: flushes.append(1)
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW)
        small.update(l1, 0, 0)
        assert not flushes
        small.tables.pin(page, FrameType.L1)
        assert flushes

    def test_a_table_of_one_level_is_not_one_of_another(self, small: SmallMachine) -> None:
        l1 = pinned_l1(small)
        with refused(Errno.EINVAL, r"type L1.*not usable as L2$"):
            small.tables.pin(l1, FrameType.L2)

    def test_two_tables_cannot_be_above_each_other(self, small: SmallMachine) -> None:
        a, b = small.own[:2]
        small.write(a, 0, b << 12 | P)
        small.write(b, 0, a << 12 | RW)
        with refused(Errno.EBUSY, r"type L2 x1.*cannot map it writable$"):
            small.tables.pin(a, FrameType.L2)
        small.audit()


class TestLeaves:
    def test_a_writable_leaf_holds_a_reference_and_a_use(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW)
        assert small.counts(page) == (FrameType.WRITABLE, 1, 2)

    def test_a_read_only_leaf_holds_a_reference(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | P)
        assert small.counts(page) == (FrameType.NONE, 0, 2)

    def test_a_leaf_that_goes_gives_both_back(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW)
        small.update(l1, 0, 0)
        assert small.counts(page) == (FrameType.WRITABLE, 0, 1)

    def test_write_permission_taken_away_gives_the_use_back(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW)
        small.update(l1, 0, page << 12 | P)
        assert small.counts(page) == (FrameType.WRITABLE, 0, 2)

    def test_bits_that_mean_nothing_to_counts_change_freely(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW)
        small.update(l1, 0, page << 12 | RW | PTE_A | PTE_D | PTE_US | 0xE00)
        assert small.counts(page) == (FrameType.WRITABLE, 1, 2)
        small.audit()

    def test_an_entry_that_is_not_present_may_be_anything(self, small: SmallMachine) -> None:
        l1 = pinned_l1(small)
        garbage = (1 << 8 * small.entry_bytes) - 2
        small.update(l1, 0, garbage)
        assert small.read(l1, 0) == garbage

    def test_another_domains_frame_is_refused(self, small: SmallMachine) -> None:
        with refused(Errno.EBUSY, rf"^mfn {small.foreign:#x} is d2's, not d1's$"):
            small.update(pinned_l1(small), 0, small.foreign << 12 | P)

    def test_xens_frame_is_refused(self, small: SmallMachine) -> None:
        with refused(Errno.EBUSY, r"is Xen's, not d1's$"):
            small.update(pinned_l1(small), 0, small.xen << 12 | P)

    def test_a_free_frame_is_refused(self, small: SmallMachine) -> None:
        free = small.frames.free_list()[0]
        with refused(Errno.EBUSY, r"is free, not d1's$"):
            small.update(pinned_l1(small), 0, free << 12 | P)

    def test_a_frame_beyond_memory_would_be_a_device(self, small: SmallMachine) -> None:
        with refused(Errno.EPERM, r"^mfn 0x40 is beyond the machine's 0x40 frames$"):
            small.update(pinned_l1(small), 0, 0x40 << 12 | P)

    @ONLY_LONG
    def test_the_frame_of_all_ones_is_invalid(self, small: SmallMachine) -> None:
        with refused(Errno.EINVAL, r"^mfn 0xffffffffff is beyond"):
            small.update(pinned_l1(small), 0, 0xF_FFFF_FFFF_F000 | P)

    def test_a_refused_change_leaves_the_old_entry(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW)
        before = small.read(l1, 0)
        with refused(Errno.EBUSY, r"is d2's"):
            small.update(l1, 0, small.foreign << 12 | P)
        assert small.read(l1, 0) == before
        small.audit()

    def test_accessed_and_dirty_are_kept_on_request(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW)
        small.write(l1, 0, small.read(l1, 0) | PTE_A | PTE_D)  # as the MMU
        small.tables.update_entry(small.maddr(l1, 0), page << 12 | RW, preserve_ad=True)
        assert small.read(l1, 0) & (PTE_A | PTE_D) == PTE_A | PTE_D
        small.update(l1, 0, page << 12 | RW)
        assert not small.read(l1, 0) & (PTE_A | PTE_D)


def disallowed_bits() -> list[tuple[Width, int, int]]:
    """Every bit that is refused, by width and level."""
    return [
        (width, level, bit)
        for width, masks in DISALLOWED.items()
        for level, mask in enumerate(masks)
        for bit in range(64)
        if mask >> bit & 1
    ]


class TestBits:
    @pytest.mark.parametrize(
        ("width", "level", "bit"),
        disallowed_bits(),
        ids=lambda value: value.name if isinstance(value, Width) else str(value),
    )
    def test_a_bit_that_is_not_allowed_is_refused(self, width: Width, level: int, bit: int) -> None:
        small = SmallMachine(width)
        chain = small.chain()
        table, below = chain[small.root_level - level], chain[small.root_level - level + 1]
        slot = 3 if (width, level) == (Width.X86_32P, 3) else 0
        why = "cannot change" if slot else "are not allowed"
        with refused(Errno.EINVAL, why):
            small.update(table, slot, below << 12 | P | 1 << bit)
        if slot:
            small.tables.unpin(table)
            small.write(table, slot, below << 12 | P | 1 << bit)
            with refused(Errno.EINVAL, "are not allowed"):
                small.tables.pin(table, FrameType.L3)
        small.audit()

    @ONLY_LONG
    def test_a_64_bit_kernels_leaf_becomes_a_users_and_is_marked(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW)
        assert small.read(l1, 0) == page << 12 | RW | PTE_US | PTE_GUEST_KERNEL

    @ONLY_LONG
    def test_a_64_bit_users_leaf_becomes_global(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW | PTE_US | PTE_NX)
        assert small.read(l1, 0) == page << 12 | RW | PTE_US | PTE_NX | PTE_G

    @ONLY_LONG
    def test_upper_entries_become_the_users(self, small: SmallMachine) -> None:
        chain = small.chain()
        assert all(small.read(table, 0) & PTE_US for table in chain[:3])

    @ONLY_LONG
    def test_top_entries_are_accessed_from_the_start(self, small: SmallMachine) -> None:
        chain = small.chain()
        assert [bool(small.read(table, 0) & PTE_A) for table in chain[:3]] == [True, False, False]
        small.update(chain[0], 0, chain[1] << 12 | RW)
        assert small.read(chain[0], 0) & PTE_A

    @ONLY_LONG
    def test_what_the_mmu_ignores_is_the_guests(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW | PTE_US | 0x7FF << 52)
        assert small.read(l1, 0) == page << 12 | RW | PTE_US | 0x7FF << 52

    @ONLY_PAE
    def test_pae_l3_entries_get_the_bits_that_the_mmu_ignores(self, small: SmallMachine) -> None:
        chain = small.chain()
        assert small.read(chain[0], 3) & (PTE_US | PTE_RW) == PTE_US | PTE_RW
        assert not small.read(chain[1], 0) & PTE_US

    def test_superpages_are_refused(self, small: SmallMachine) -> None:
        small.tables.pin(small.own[0], FrameType.L2)
        with refused(Errno.EINVAL, r"bits 0x80 are not allowed$"):
            small.update(small.own[0], 0, PTE_PSE | RW)


class TestTrees:
    def test_a_pin_holds_every_table_below(self, small: SmallMachine) -> None:
        *tables, page = small.chain(RW)
        kinds = [small.counts(mfn)[:2] for mfn in tables]
        wanted = [(TYPE_OF_LEVEL[small.root_level - idx], 1) for idx in range(len(tables))]
        if small.width is Width.X86_32P:
            wanted[1] = (FrameType.XEN_L2, 1)
        assert kinds == wanted
        assert small.counts(page) == (FrameType.WRITABLE, 1, 2)
        small.audit()

    def test_unpinning_gives_all_back(self, small: SmallMachine) -> None:
        chain = small.chain(RW)
        small.tables.unpin(chain[0])
        assert all(small.counts(mfn)[1:] == (0, 1) for mfn in chain)
        small.audit()

    def test_a_shared_table_is_validated_once_and_counted_twice(self, small: SmallMachine) -> None:
        l1, first, second, page = small.own[:4]
        small.write(l1, 0, page << 12 | RW)
        for l2 in (first, second):
            small.write(l2, 0, l1 << 12 | P)
            small.tables.pin(l2, FrameType.L2)
        assert small.counts(l1)[:2] == (FrameType.L1, 2)
        assert small.counts(page) == (FrameType.WRITABLE, 1, 2)

    def test_a_refusal_below_undoes_what_was_taken(self, small: SmallMachine) -> None:
        l2, good, bad, page = small.own[:4]
        small.write(good, 0, page << 12 | RW)
        small.write(bad, 0, small.foreign << 12 | P)
        small.write(l2, 0, good << 12 | P)
        small.write(l2, 1, bad << 12 | P)
        with refused(Errno.EBUSY, r"is d2's"):
            small.tables.pin(l2, FrameType.L2)
        assert all(small.counts(mfn)[1:] == (0, 1) for mfn in (l2, good, bad, page))
        small.audit()

    def test_an_upper_entry_names_only_own_frames(self, small: SmallMachine) -> None:
        small.tables.pin(small.own[0], FrameType.L2)
        for mfn in (small.foreign, small.xen, 0, 0x40):
            with refused(Errno.EINVAL, r"not d1's$"):
                small.update(small.own[0], 0, mfn << 12 | P)

    def test_a_frame_given_back_lives_while_a_table_names_it(self, small: SmallMachine) -> None:
        l1, page = pinned_l1(small), small.own[1]
        small.update(l1, 0, page << 12 | RW)
        small.frames.release_allocation(page)
        assert small.frames.owner[page] == OWNER
        small.update(l1, 0, 0)
        assert small.frames.owner[page] == OWNER_FREE
        small.audit()


class TestPins:
    def test_a_table_is_pinned_once(self, small: SmallMachine) -> None:
        l1 = pinned_l1(small)
        with refused(Errno.EINVAL, r"pinned; pinned already$"):
            small.tables.pin(l1, FrameType.L1)
        assert small.counts(l1)[1:] == (1, 2)

    def test_what_is_not_pinned_cannot_be_unpinned(self, small: SmallMachine) -> None:
        with refused(Errno.EINVAL, r"; not pinned$"):
            small.tables.unpin(small.own[0])

    def test_anothers_table_is_not_pinned_or_unpinned(self, small: SmallMachine) -> None:
        for attempt in (lambda mfn: small.tables.pin(mfn, FrameType.L1), small.tables.unpin):
            for mfn in (small.foreign, 1 << 50):
                with refused(Errno.EINVAL, r"not d1's$"):
                    attempt(mfn)

    def test_a_pinned_frame_is_freed_by_its_unpin(self, small: SmallMachine) -> None:
        l1 = pinned_l1(small)
        small.frames.release_allocation(l1)
        assert small.frames.flags[l1] & PINNED
        small.tables.unpin(l1)
        assert small.frames.owner[l1] == OWNER_FREE


class TestXensSlots:
    def test_they_are_filled_in(self, small: SmallMachine) -> None:
        holder = small.chain()[1 if small.width is Width.X86_32P else 0]
        assert small.read(holder, small.xen_slots.first) == small.xen_entry
        small.audit()

    def test_what_the_guest_had_there_is_overwritten(self, small: SmallMachine) -> None:
        holder = small.own[1 if small.width is Width.X86_32P else 0]
        for slot in (small.xen_slots.first, small.xen_slots.end - 1):
            small.write(holder, slot, small.foreign << 12 | RW)
        small.chain()
        assert small.read(holder, small.xen_slots.first) == small.xen_entry
        assert small.read(holder, small.xen_slots.end - 1) == 0

    @pytest.mark.parametrize("entry", [0, P], ids=["cleared", "changed"])
    def test_they_cannot_be_changed(self, small: SmallMachine, entry: int) -> None:
        holder = small.chain()[1 if small.width is Width.X86_32P else 0]
        errno = Errno.EINVAL if small.width is Width.X86_64 else Errno.EPERM
        for slot in (small.xen_slots.first, small.xen_slots.end - 1):
            with refused(errno, r"is Xen's$"):
                small.update(holder, slot, entry)

    @ONLY_LONG
    def test_behind_them_the_slots_are_the_guests(self, small: SmallMachine) -> None:
        chain = small.chain()
        small.update(chain[0], small.xen_slots.end, chain[1] << 12 | P)
        assert small.counts(chain[1])[1] == 2
        small.audit()

    @ONLY_PAE
    def test_an_l2_without_them_is_another_type(self, small: SmallMachine) -> None:
        chain = small.chain()
        with refused(Errno.EINVAL, r"type XEN_L2.*not usable as L2$"):
            small.tables.pin(chain[1], FrameType.L2)
        with refused(Errno.EINVAL, r"type XEN_L2.*not usable as L2$"):
            small.update(chain[0], 0, chain[1] << 12 | P)

    @ONLY_PAE
    def test_the_l2_that_has_them_belongs_to_one_l3(self, small: SmallMachine) -> None:
        chain = small.chain()
        second = small.own[-1]
        small.write(second, 3, chain[1] << 12 | P)
        with refused(Errno.EINVAL, r"is slot 3 of another L3 table already$"):
            small.tables.pin(second, FrameType.L3)
        small.audit()

    @ONLY_PAE
    def test_slot_3_must_be_there(self, small: SmallMachine) -> None:
        with refused(Errno.EINVAL, r"L3\[3\] must be present$"):
            small.tables.pin(small.own[0], FrameType.L3)

    @ONLY_PAE
    @pytest.mark.parametrize("slot", [3, 4, 511])
    def test_slot_3_and_those_behind_it_cannot_change(self, small: SmallMachine, slot: int) -> None:
        chain = small.chain()
        with refused(Errno.EINVAL, rf"^slot {slot} of a PAE L3 table cannot change$"):
            small.update(chain[0], slot, 0)

    @ONLY_PAE
    def test_only_four_slots_count_and_the_rest_is_cleared(self, small: SmallMachine) -> None:
        small.write(small.own[0], 4, small.foreign << 12 | RW)
        chain = small.chain()
        assert small.read(chain[0], 4) == 0


@ONLY_LEGACY
def test_a_two_level_l2_has_1008_slots_of_the_guests(small: SmallMachine) -> None:
    l2, l1 = small.own[:2]
    small.tables.pin(l2, FrameType.L2)
    small.update(l2, 1007, l1 << 12 | P)
    assert small.counts(l1)[:2] == (FrameType.L1, 1)


@ONLY_PAE
def test_a_pae_root_lies_below_4_gib_unless_cr3_is_extended(
    small: SmallMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that large is not needed to see it: the limit is pulled down."""
    monkeypatch.setattr(pagetables, "_MFN_4GIB", 1)
    with refused(Errno.ERANGE, r"must lie below 4 GiB$"):
        small.chain()
    small.tables.extended_cr3 = True
    small.tables.pin(small.own[0], FrameType.L3)
