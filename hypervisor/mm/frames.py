"""The frame table: one row per machine frame, and the two counts that keep domains apart.

Each frame has an owner, a *reference count* (how many things name it: its allocation, each mapping,
each use as a table) and a *type* with a *type count* (how many of these uses need it to stay what
it is). The invariant that everything else rests on:

    a frame has one type at a time, and the type changes only while its type count is 0

so a frame mapped writable (type WRITABLE) is not a page table, and a page table is mapped writable
by nobody (struct page_info and PGT_* in Xen's arch/x86/include/asm/mm.h). Rows are columns of
arrays: 20 bytes a frame, so a 4 GiB machine costs 20 MiB.

Removing the last writable mapping does not remove it from a TLB. As in Xen, each frame remembers
the flush epoch in which it last lost its writable type or a mapping; changing its use within the
same epoch asks for a flush first (tlbflush_timestamp there).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from math import gcd
from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.types import DOMID_XEN
from hypervisor.machine.memory import MachineMemory


class FrameType(IntEnum):
    """What a frame is used as (PGT_*)."""

    NONE = 0
    WRITABLE = 1
    L1 = 2
    L2 = 3
    L3 = 4
    L4 = 5
    SEGDESC = 6
    XEN_L2 = 7  # PAE only: the L2 that holds Xen's slots; not interchangeable with an L2


#: Types whose contents are checked when the first type reference is taken.
VALIDATED_TYPES: Final = frozenset(
    {FrameType.L1, FrameType.L2, FrameType.L3, FrameType.L4, FrameType.SEGDESC, FrameType.XEN_L2}
)

OWNER_FREE: Final = 0xFFFF
OWNER_XEN: Final = DOMID_XEN

ALLOCATED: Final = 1 << 0  # holds the reference that the owner's reservation gives (PGC_allocated)
PINNED: Final = 1 << 1  # holds a type and a general reference (PGT_pinned)
VALIDATED: Final = 1 << 2  # contents checked (PGT_validated)
LENT: Final = 1 << 3  # a page of Xen's that its owner may map; in nobody's reservation

MAX_COUNT: Final = (1 << 31) - 1


class FrameTable:
    """Owner, type and counts of every machine frame, and the free list."""

    def __init__(self, memory: MachineMemory, *, seed: int = 0) -> None:
        nr = memory.nr_frames
        self.memory = memory
        self.nr_frames = nr
        self.owner = array("H", [OWNER_FREE]) * nr
        self.type = bytearray(nr)
        self.flags = bytearray(nr)
        self.type_count = array("I", [0]) * nr
        self.ref_count = array("I", [0]) * nr
        self.stamp = array("Q", [0]) * nr  # flush epoch of the last lost mapping
        self.epoch = 1  # advanced by flushed()
        # filled by the owner of the CPU
        self.flush_needed: Callable[[], None] = _no_tlb  # flushes the TLB
        self.scrubbed: Callable[[int], None] = _no_code  # a frame is nobody's now
        self.code_frames = bytearray(nr)  # nonzero where code may have been translated from
        self.code_written: Callable[[int, int], None] = _no_code_there  # forget that of such frames
        self._free = _scattered(nr, seed)
        self._held: Counter[int] = Counter()  # frames of each owner, lent ones not counted

    # --- allocation --------------------------------------------------------------
    @property
    def nr_free(self) -> int:
        """Frames that belong to nobody."""
        return len(self._free)

    def free_list(self) -> list[int]:
        """The frames that belong to nobody; the last is given next."""
        return list(self._free)

    def nr_held(self, owner: int) -> int:
        """How many frames `owner` keeps from others: its reservation, and what it gave up but still
        maps (domain_tot_pages in Xen, which counts a frame until nothing names it).
        """
        return self._held[owner]

    def allocate(self, owner: int, count: int) -> list[int]:
        """Give `count` zeroed frames to `owner`, in no useful order; each holds one reference.

        The order is scattered on purpose: a guest or a backend that confuses pseudo-physical with
        machine numbers fails at once. Raises XenError(ENOMEM), and takes nothing, if there are
        fewer.
        """
        free = self._free
        if count > len(free):
            raise XenError(Errno.ENOMEM, f"{count} frames wanted, {len(free)} free")
        taken = free[len(free) - count :]
        del free[len(free) - count :]
        self._give(taken, owner)
        return taken

    def _give(self, mfns: Sequence[int], owner: int) -> None:
        """Free frames are `owner`'s; no stale translation of them is left."""
        self._held[owner] += len(mfns)
        epoch_used = False
        for mfn in mfns:
            self.owner[mfn] = owner
            self.ref_count[mfn] = 1
            self.flags[mfn] = ALLOCATED
            epoch_used = epoch_used or self.stamp[mfn] == self.epoch
        if epoch_used:
            self.flush_needed()

    def allocate_extent(self, owner: int, count: int) -> list[int]:
        """`count` neighbouring, aligned frames (a power of two) for `owner`.

        Raises XenError(ENOMEM) if there is no such stretch.
        """
        if count == 1:
            return self.allocate(owner, 1)
        if count <= len(self._free):
            all_free = array("H", [OWNER_FREE]) * count
            for first in range(count, self.nr_frames - count + 1, count):
                if self.owner[first : first + count] == all_free:
                    return self.take(range(first, first + count), owner)
        raise XenError(Errno.ENOMEM, f"no {count} neighbouring frames are free")

    def take(self, mfns: range, owner: int) -> list[int]:
        """Give these very frames, all free, to `owner`: for what must lie contiguously."""
        assert all(self.owner[mfn] == OWNER_FREE for mfn in mfns), "a wanted frame is in use"
        self._free = [mfn for mfn in self._free if mfn not in mfns]
        self._give(mfns, owner)
        return list(mfns)

    def allocate_xen(self, count: int) -> list[int]:
        """Frames for Xen's own use: no domain can ever map them."""
        return self.allocate(OWNER_XEN, count)

    def release_allocation(self, mfn: int) -> None:
        """Give back allocation's reference; the frame goes when nothing else names it."""
        if not self.flags[mfn] & ALLOCATED:
            raise XenError(Errno.EINVAL, f"mfn {mfn:#x} is no longer in its owner's reservation")
        self.flags[mfn] &= ~ALLOCATED
        self.put_page(mfn)

    # --- general references ------------------------------------------------------
    def get_page(self, mfn: int, owner: int) -> None:
        """One more reference on a frame of `owner`. Raises XenError(EINVAL) if it is not its."""
        if mfn >= self.nr_frames or self.owner[mfn] != owner:
            raise XenError(Errno.EINVAL, f"mfn {mfn:#x} {self.whose(mfn)}, not d{owner}'s")
        if self.ref_count[mfn] >= MAX_COUNT:
            raise XenError(Errno.EBUSY, f"mfn {mfn:#x} has too many references")
        self.ref_count[mfn] += 1

    def put_page(self, mfn: int) -> None:
        """Drop one reference; the last one frees and scrubs the frame."""
        count = self.ref_count[mfn] - 1
        self.ref_count[mfn] = count
        if count == 0:
            self._free_frame(mfn)

    def _free_frame(self, mfn: int) -> None:
        assert self.type_count[mfn] == 0, f"mfn {mfn:#x} freed while typed"
        if not self.flags[mfn] & LENT:
            self._holds_one_less(self.owner[mfn])
        self.owner[mfn] = OWNER_FREE
        self.type[mfn] = FrameType.NONE
        self.flags[mfn] = 0
        self.stamp[mfn] = self.epoch
        self.memory.frame(mfn)[:] = _ZERO_FRAME
        self.scrubbed(mfn)
        self._free.append(mfn)

    def _holds_one_less(self, owner: int) -> None:
        count = self._held[owner] - 1
        if count:
            self._held[owner] = count
        else:
            del self._held[owner]  # domains come and go, and their numbers are not used again

    # --- pages of Xen's that a domain may map ----------------------------------------
    def lend(self, mfn: int) -> None:
        """Make an allocated frame a page of Xen's that its owner may map and write.

        It is typed writable for good, so it never becomes a page table, and it is in nobody's
        reservation, so no guest can give it away (share_xen_page_with_guest in Xen).
        """
        self._holds_one_less(self.owner[mfn])
        self.flags[mfn] = LENT
        self.type[mfn] = FrameType.WRITABLE
        self.type_count[mfn] = 1

    def take_back(self, mfn: int) -> None:
        """Xen needs a lent page no longer: it is freed when its last mapping goes."""
        self.type_count[mfn] -= 1
        self.put_page(mfn)

    # --- flush epochs ------------------------------------------------------------
    def flushed(self) -> None:
        """The whole TLB has just been flushed: nothing stale is left from before."""
        self.epoch += 1

    def settle(self, mfn: int) -> None:
        """No stale translation of `mfn` is left in the TLB; flush it if one might be."""
        if self.stamp[mfn] == self.epoch:
            self.flush_needed()

    # --- words -------------------------------------------------------------------
    def whose(self, mfn: int) -> str:
        """The owner of a frame in words, for refusals and reports."""
        if mfn >= self.nr_frames:
            return f"is beyond the machine's {self.nr_frames:#x} frames"
        owner = self.owner[mfn]
        if owner == OWNER_FREE:
            return "is free"
        return "is Xen's" if owner == OWNER_XEN else f"is d{owner}'s"

    def describe(self, mfn: int) -> str:
        """One line on a frame: owner, type and counts."""
        if mfn >= self.nr_frames:
            return f"mfn {mfn:#x} {self.whose(mfn)}"
        kind = FrameType(self.type[mfn]).name
        pinned = ", pinned" if self.flags[mfn] & PINNED else ""
        return (
            f"mfn {mfn:#x} {self.whose(mfn)}: type {kind} x{self.type_count[mfn]}, "
            f"{self.ref_count[mfn]} references{pinned}"
        )

    def owned_by(self, owner: int) -> list[int]:
        """All frames of `owner`, ascending."""
        return [mfn for mfn, who in enumerate(self.owner) if who == owner]


_ZERO_FRAME: Final = bytes(4096)


def _no_tlb() -> None:
    """A frame table without a CPU has no TLB to flush."""


def _no_code(mfn: int) -> None:
    """A frame table without a CPU has no translated code to forget."""


def _no_code_there(maddr: int, size: int) -> None:
    """The same."""


def _scattered(nr: int, seed: int) -> list[int]:
    """Frames 1..nr-1 in a fixed order in which neighbours are far apart.

    A stride coprime to the number of frames visits each once. Frame 0 stays unused: an entry that
    names it by mistake is then always refused.
    """
    stride = max(1, int(nr * 0.381966)) + 2 * seed
    while gcd(stride, nr) != 1:
        stride += 1
    order: Iterable[int] = ((i * stride) % nr for i in range(nr))
    return [mfn for mfn in order if mfn]
