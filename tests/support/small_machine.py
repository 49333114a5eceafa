"""A frame table of a few frames, two domains in it, and no CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.audit import AuditSubject, audit
from hypervisor.mm.entries import TYPE_OF_LEVEL
from hypervisor.mm.frames import FrameTable, FrameType
from hypervisor.mm.hole_map import HOLE
from hypervisor.mm.pagetables import PageTables, XenSlots

P: Final = 1
RW: Final = 3  # present and writable
OWNER: Final = 1
STRANGER: Final = 2
NR_FRAMES: Final = 64


class SmallMachine:
    """Frames of one domain of `width` (`own`), one of a stranger, one of Xen's."""

    def __init__(self, width: Width) -> None:
        self.width = width
        self.memory = MachineMemory(NR_FRAMES * 4096)
        self.frames = FrameTable(self.memory)
        (self.xen,) = self.frames.allocate_xen(1)
        hole = HOLE[width]
        self.entry_bytes = 4 if width is Width.X86_32 else 8
        self.xen_entry = self.xen << 12 | RW
        rest = bytes(self.entry_bytes * (hole.end_slot - hole.first_slot - 1))
        entries = self.xen_entry.to_bytes(self.entry_bytes, "little") + rest
        self.xen_slots = XenSlots(hole.table, hole.first_slot, hole.end_slot, entries)
        self.tables = PageTables(self.frames, width, OWNER, self.xen_slots)
        self.own = self.frames.allocate(OWNER, 12)
        (self.foreign,) = self.frames.allocate(STRANGER, 1)

    @property
    def root_level(self) -> int:
        """The level of a top-level table."""
        return self.tables.mode.levels

    def maddr(self, mfn: int, slot: int) -> int:
        """Where an entry of a table lies."""
        return (mfn << 12) + slot * self.entry_bytes

    def write(self, mfn: int, slot: int, entry: int) -> None:
        """As the guest, through a mapping: nobody looks."""
        self.memory.write(self.maddr(mfn, slot), entry.to_bytes(self.entry_bytes, "little"))

    def read(self, mfn: int, slot: int) -> int:
        """An entry as it stands."""
        return self.tables.read_entry(self.maddr(mfn, slot))

    def update(self, mfn: int, slot: int, entry: int) -> None:
        """As mmu_update. Raises XenError."""
        self.tables.update_entry(self.maddr(mfn, slot), entry)

    def chain(self, leaf: int = P) -> list[int]:
        """A root, the tables below it, and a page that the last one maps with `leaf`, pinned."""
        frames = self.own[: self.root_level + 1]
        for upper, lower in itertools.pairwise(frames):
            flags = leaf if lower == frames[-1] else RW
            is_pae_root = self.width is Width.X86_32P and upper == frames[0]
            self.write(upper, 3 if is_pae_root else 0, lower << 12 | flags)
        self.tables.pin(frames[0], TYPE_OF_LEVEL[self.root_level])
        return frames

    def counts(self, mfn: int) -> tuple[FrameType, int, int]:
        """Type, type count and reference count."""
        frames = self.frames
        return FrameType(frames.type[mfn]), frames.type_count[mfn], frames.ref_count[mfn]

    def audit(self, subject: AuditSubject | None = None) -> None:
        """All counts are right."""
        others = PageTables(self.frames, self.width, STRANGER, self.xen_slots)
        audit(self.frames, [subject or AuditSubject(self.tables), AuditSubject(others)])


@contextmanager
def refused(errno: Errno, why: str) -> Iterator[None]:
    """What is done here is refused with `errno`, for a reason that matches `why`."""
    with pytest.raises(XenError, match=why) as refusal:
        yield
    assert refusal.value.errno is errno
