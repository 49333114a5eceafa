"""A guest that does its worst: hypercalls through the real dispatcher, with any register values.

Nothing of the guest is executed. The registers are set as its kernel would have them, and the
machine's own way in is called, so that everything from decoding to the upcall is as in a run.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr
from hypervisor.api import Machine
from hypervisor.domain.domain import DomainState, VcpuState
from hypervisor.mm.audit import audit
from hypervisor.mm.frames import OWNER_XEN
from hypervisor.mm.hole_map import HOLE
from hypervisor.x86.flags import R8, R9, R10, RAX, RBP, RBX, RCX, RDI, RDX, RSI
from tests.support.callers import BASE, Guest

_ARGS_32: Final = (RBX, RCX, RDX, RSI, RDI, RBP)
_ARGS_64: Final = (RDI, RSI, RDX, R10, R8, R9)
_MOST_PIECES: Final = 60
_INSTRUCTION_BYTES: Final = 2  # int $0x82, syscall

NASTY: Final = (
    *range(18),
    0x3F,
    0x40,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x1FF,
    0x200,
    0x3FF,
    0xFFF,
    0x1000,
    0x1FFF,
    0x7FF0,
    0x7FF1,
    0x7FF2,
    0x7FF3,
    0x7FF4,
    0x7FFF,
    0xFFFF,
    0x10000,
    0x7FFF_FFFF,
    0x8000_0000,
    0x8000_0001,
    0xFFFF_F000,
    0xFFFF_FFFC,
    0xFFFF_FFFF,
    0x1_0000_0000,
    (1 << 40) - 1,
    (1 << 47) - 4096,
    (1 << 47) - 1,
    1 << 47,
    (1 << 52) - 1,
    0x8000_0000_0000_0000,
    0xFFFF_7FFF_FFFF_FFFF,
    0xFFFF_8000_0000_0000,
    0xFFFF_87FF_FFFF_FFFF,
    0xFFFF_8800_0000_0000,
    0xFFFF_FFFF_FFFF_F000,
    0xFFFF_FFFF_FFFF_FFF8,
    0xFFFF_FFFF_FFFF_FFFF,
)


class Attacker:
    """A guest and its neighbour on one machine."""

    def __init__(self, machine: Machine, width: Width, *, privileged: bool = False) -> None:
        self.machine = machine
        self.host = machine.vmm.host
        self.width = width
        self.privileged = privileged
        self.neighbour = Guest(machine, width)
        self.guest = Guest(machine, width, privileged=privileged)
        self.most_pieces = _MOST_PIECES
        self.pieces = 0  # that the latest call was made in
        self._others = self.neighbours_memory()

    # --- calls ---------------------------------------------------------------------------------
    def call(self, number: int, *args: int) -> int | None:
        """A hypercall, all pieces of it; what the result register says, signed."""
        self.guest.enter()
        state = self.machine.vmm.cpu.state
        state.set_gpr(RAX, number)
        for register, value in zip(_ARGS_64 if self.width.is_64 else _ARGS_32, args, strict=False):
            state.set_gpr(register, value & ((1 << self.width.bits) - 1))
        state.rip = BASE[self.width] + _INSTRUCTION_BYTES
        self.pieces = 0
        while self.pieces < self.most_pieces:
            self._enter()
            self.pieces += 1
            if state.rip != BASE[self.width]:  # it is not to be made again
                break
            state.rip += _INSTRUCTION_BYTES
        result = state.gpr(RAX) & ((1 << self.width.bits) - 1)
        return result - (result >> (self.width.bits - 1) << self.width.bits)

    def _enter(self) -> None:
        self.machine.vmm.dispatcher.made()

    def unmap_spare_frames(self, count: int) -> list[int]:
        """Its last `count` frames, which its kernel maps to begin with, mapped no more."""
        p2m = self.guest.dom.p2m
        for pfn in range(len(p2m) - count, len(p2m)):
            vaddr = BASE[self.width] + pfn * 4096
            assert self.call(HypercallNr.UPDATE_VA_MAPPING, vaddr, 0, 0, 0) == 0
        return p2m[-count:]

    def revive(self) -> bool:
        """A guest that ended or lost its way is whole again; True if it is another one now."""
        guest = self.guest
        if guest.dom.state is not DomainState.RUNNING or not self._can_go_on():
            self.machine.vmm.destroy(guest.dom)
            self.guest = Guest(self.machine, self.width, privileged=self.privileged)
            return True
        if guest.vcpu.state is not VcpuState.RUNNABLE:
            self.host.wake(guest.vcpu)
            guest.vcpu.state = VcpuState.RUNNABLE
        return False

    def _can_go_on(self) -> bool:
        state = self.machine.vmm.cpu.state
        if not self.width.is_64 and state.cpl != 1:
            return False
        if self.width.is_64 and not self.guest.vcpu.kernel_mode:
            return False
        try:
            self.guest.put(b"\0")
        except XenError:  # it has unmapped its data
            return False
        return True

    # --- what an attacker knows -----------------------------------------------------------------
    def values(self, rng: random.Random) -> list[int]:
        """Numbers that hurt: bounds, addresses, frames of everybody, entries that name them."""
        frames = self.host.frames
        own = rng.sample(self.guest.dom.p2m, 6)
        tables = [mfn for mfn in self.guest.dom.p2m if frames.type[mfn] > 1][:6]
        xen = [mfn for mfn, owner in enumerate(frames.owner) if owner == OWNER_XEN][:3]
        foreign = [self.neighbour.vcpu.root_mfn, *self.neighbour.dom.p2m[:2]]
        mfns = [*own, *tables, *xen, *foreign, self.guest.vcpu.root_mfn]
        mfns += [frames.nr_frames - 1, frames.nr_frames, self.guest.dom.shared_info_mfn]
        hole = HOLE[self.width]
        addresses = [
            self.guest.data,
            self.guest.data + 8,
            self.guest.data + 0xFF8,
            BASE[self.width],
        ]
        addresses += [hole.vaddr, hole.windows_vaddr, hole.vaddr - 4, hole.vaddr - 4096]
        entries = [mfn << 12 | rng.choice((1, 3, 7, 0x63, 0x67, 0x83, 0x1F)) for mfn in mfns]
        requests = [(mfn << 12) + 8 * rng.randrange(512) + rng.randrange(5) for mfn in mfns]
        domids = [self.guest.dom.domid, self.neighbour.dom.domid]
        return [*NASTY, *mfns, *addresses, *addresses, *entries, *requests, *domids]

    def fill(self, rng: random.Random, values: Sequence[int]) -> None:
        """The data page full of such numbers, as words of the guest's size, of 4 or of 8."""
        size = rng.choice((4, 8, self.width.word_bytes))
        mask = (1 << 8 * size) - 1
        words = [rng.choice(values) & mask for _ in range(64)]
        self.guest.put(b"".join(word.to_bytes(size, "little") for word in words))

    # --- what must hold -------------------------------------------------------------------------
    def neighbours_memory(self) -> str:
        """A digest of all that the neighbour owns."""
        total = hashlib.sha256()
        for mfn in self.host.frames.owned_by(self.neighbour.dom.domid):
            total.update(mfn.to_bytes(8, "little"))
            total.update(self.host.memory.frame(mfn))
        return total.hexdigest()

    def check(self) -> None:
        """All counts are right, and the neighbour has not noticed anything."""
        audit(self.host.frames, self.machine.vmm.audit_subjects())
        assert self.neighbours_memory() == self._others
        assert self.neighbour.dom.state is DomainState.RUNNING


@contextmanager
def attacker(width: Width, *, privileged: bool = False) -> Iterator[Attacker]:
    """A machine with an attacker on it."""
    with Machine(memory_mib=24) as machine:
        yield Attacker(machine, width, privileged=privileged)
