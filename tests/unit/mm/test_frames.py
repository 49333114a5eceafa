"""The frame table: owners, references, types, and the TLB's memory of them."""

from __future__ import annotations

import itertools

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.frames import ALLOCATED, LENT, OWNER_FREE, OWNER_XEN, FrameTable, FrameType
from tests.support.small_machine import refused

OWNER, OTHER = 1, 2


@pytest.fixture
def frames() -> FrameTable:
    return FrameTable(MachineMemory(64 * 4096))


def count_flushes(frames: FrameTable) -> list[int]:
    """Epochs in which a flush was asked for; each opens the next."""
    flushes: list[int] = []

    def flush() -> None:
        flushes.append(frames.epoch)
        frames.flushed()

    frames.flush_needed = flush
    return flushes


class TestAllocation:
    def test_frame_0_is_never_given(self, frames: FrameTable) -> None:
        assert 0 not in frames.allocate(OWNER, frames.nr_free)

    def test_neighbours_in_a_reservation_are_not_neighbours_in_memory(
        self, frames: FrameTable
    ) -> None:
        mfns = frames.allocate(OWNER, 32)
        assert all(abs(a - b) > 1 for a, b in itertools.pairwise(mfns))

    def test_the_order_is_the_same_for_the_same_seed(self) -> None:
        first, second, other = (
            FrameTable(MachineMemory(64 * 4096), seed=seed).free_list() for seed in (3, 3, 4)
        )
        assert first == second != other

    def test_each_frame_holds_one_reference(self, frames: FrameTable) -> None:
        (mfn,) = frames.allocate(OWNER, 1)
        assert (frames.owner[mfn], frames.ref_count[mfn], frames.flags[mfn]) == (
            OWNER,
            1,
            ALLOCATED,
        )

    def test_too_many_take_none(self, frames: FrameTable) -> None:
        free = frames.nr_free
        with refused(Errno.ENOMEM, r"^64 frames wanted, 63 free$"):
            frames.allocate(OWNER, 64)
        assert (frames.nr_free, frames.nr_held(OWNER)) == (free, 0)

    def test_an_extent_is_aligned_and_contiguous(self, frames: FrameTable) -> None:
        mfns = frames.allocate_extent(OWNER, 8)
        assert mfns == list(range(mfns[0], mfns[0] + 8))
        assert mfns[0] % 8 == 0
        assert not set(mfns) & set(frames.free_list())

    def test_an_extent_that_is_nowhere_is_refused(self, frames: FrameTable) -> None:
        frames.allocate(OWNER, 40)
        with refused(Errno.ENOMEM, r"^no 32 neighbouring frames are free$"):
            frames.allocate_extent(OWNER, 32)
        assert frames.nr_held(OWNER) == 40


class TestReferences:
    def test_the_last_reference_frees_and_scrubs(self, frames: FrameTable) -> None:
        (mfn,) = frames.allocate(OWNER, 1)
        frames.memory.frame(mfn)[:6] = b"secret"
        scrubbed: list[int] = []
        frames.scrubbed = scrubbed.append
        frames.put_page(mfn)
        assert frames.owner[mfn] == OWNER_FREE
        assert not any(frames.memory.frame(mfn))
        assert scrubbed == [mfn]
        assert frames.free_list()[-1] == mfn

    @pytest.mark.parametrize("mfn", [64, 1 << 40])
    def test_a_frame_beyond_memory_is_refused(self, frames: FrameTable, mfn: int) -> None:
        with refused(Errno.EINVAL, rf"^mfn {mfn:#x} is beyond the machine's 0x40 frames"):
            frames.get_page(mfn, OWNER)

    @pytest.mark.parametrize(("owner", "whose"), [(OTHER, "is d2's"), (OWNER_XEN, "is Xen's")])
    def test_anothers_frame_is_refused(self, frames: FrameTable, owner: int, whose: str) -> None:
        (mfn,) = frames.allocate(owner, 1)
        with refused(Errno.EINVAL, rf"^mfn {mfn:#x} {whose}, not d1's$"):
            frames.get_page(mfn, OWNER)

    def test_a_free_frame_is_refused(self, frames: FrameTable) -> None:
        with refused(Errno.EINVAL, r"^mfn 0x5 is free, not d1's$"):
            frames.get_page(5, OWNER)

    def test_references_do_not_wrap(self, frames: FrameTable) -> None:
        (mfn,) = frames.allocate(OWNER, 1)
        frames.ref_count[mfn] = (1 << 31) - 1
        with refused(Errno.EBUSY, r"too many references$"):
            frames.get_page(mfn, OWNER)


class TestReservation:
    def test_a_frame_counts_until_nothing_names_it(self, frames: FrameTable) -> None:
        (mfn,) = frames.allocate(OWNER, 1)
        frames.get_page(mfn, OWNER)
        frames.release_allocation(mfn)
        assert frames.nr_held(OWNER) == 1
        frames.put_page(mfn)
        assert frames.nr_held(OWNER) == 0

    def test_it_cannot_be_given_back_twice(self, frames: FrameTable) -> None:
        (mfn,) = frames.allocate(OWNER, 1)
        frames.get_page(mfn, OWNER)
        frames.release_allocation(mfn)
        with refused(Errno.EINVAL, r"no longer in its owner's reservation$"):
            frames.release_allocation(mfn)

    def test_a_lent_page_is_in_no_reservation(self, frames: FrameTable) -> None:
        (mfn,) = frames.allocate(OWNER, 1)
        frames.lend(mfn)
        assert frames.nr_held(OWNER) == 0
        assert frames.flags[mfn] == LENT
        with pytest.raises(XenError):
            frames.release_allocation(mfn)

    def test_a_lent_page_that_is_taken_back_is_free(self, frames: FrameTable) -> None:
        (mfn,) = frames.allocate(OWNER, 1)
        frames.lend(mfn)
        frames.take_back(mfn)
        assert frames.owner[mfn] == OWNER_FREE
        assert frames.nr_held(OWNER) == 0

    def test_a_lent_page_stays_writable_memory(self, frames: FrameTable) -> None:
        (mfn,) = frames.allocate(OWNER, 1)
        frames.lend(mfn)
        assert (frames.type[mfn], frames.type_count[mfn]) == (FrameType.WRITABLE, 1)


class TestFlushes:
    def test_a_frame_freed_in_this_epoch_is_flushed_before_it_is_given(
        self, frames: FrameTable
    ) -> None:
        flushes = count_flushes(frames)
        (mfn,) = frames.allocate(OWNER, 1)
        frames.put_page(mfn)
        assert frames.allocate(OTHER, 1) == [mfn]
        assert flushes == [1]

    def test_a_frame_freed_before_a_flush_is_not(self, frames: FrameTable) -> None:
        flushes = count_flushes(frames)
        (mfn,) = frames.allocate(OWNER, 1)
        frames.put_page(mfn)
        frames.flushed()
        frames.allocate(OTHER, 1)
        assert flushes == []

    def test_so_is_an_extent(self, frames: FrameTable) -> None:
        flushes = count_flushes(frames)
        for mfn in frames.allocate(OWNER, 63):
            frames.put_page(mfn)
        frames.allocate_extent(OTHER, 4)
        assert flushes == [1]

    def test_epochs_do_not_end(self, frames: FrameTable) -> None:
        """A TLB can be flushed more often than 32 bits count."""
        frames.epoch = 1 << 33
        (mfn,) = frames.allocate(OWNER, 1)
        frames.put_page(mfn)
        assert frames.stamp[mfn] == 1 << 33


def test_a_frame_is_described_in_a_line(frames: FrameTable) -> None:
    (mfn,) = frames.allocate(OWNER, 1)
    assert frames.describe(mfn) == f"mfn {mfn:#x} is d1's: type NONE x0, 1 references"
    assert frames.describe(99) == "mfn 0x63 is beyond the machine's 0x40 frames"
