"""Any hypercall with any arguments: a result, a refusal, an end of the domain; never our mistake.

Registers and the structures that they point to are made of the values where mistakes live: small
numbers, the ends of ranges, pointers to data, to nothing, to Xen. Whatever comes of it must be an
answer that Xen could have given, and the frame counts must be right at the end of each life.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Final

import pytest

from hypervisor.abi.errors import DomainCrash, XenError
from hypervisor.abi.types import DOMID_SELF
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr
from hypervisor.domain.domain import DomainState
from hypervisor.hypercalls.table import HYPERCALLS, SUBOPS, Preempted
from hypervisor.mm.audit import audit
from tests.support.callers import UNMAPPED, Guest, guests, hole

LIVES: Final = 12
CALLS_A_LIFE: Final = 60
DATA_BYTES: Final = 512
NUMBERS: Final = (0, 1, 2, 3, 7, 8, 63, 64, 127, 128, 255, 256, 4095, 4096, 7168, 7169, DOMID_SELF)
ENDS: Final = (0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, 1 << 47, (1 << 63) - 1, 1 << 63)
CALLS: Final = sorted(HYPERCALLS)


class Attacker:
    """Draws hypercalls for one guest."""

    def __init__(self, guest: Guest, seed: int) -> None:
        self.guest = guest
        self.dice = random.Random(seed)
        self.mask = (1 << guest.width.bits) - 1
        self.frames = [guest.spare_frame(), guest.vcpu.root_mfn, guest.dom.shared_info_mfn, 1]

    def value(self) -> int:
        """A word that may mean something."""
        dice, guest = self.dice, self.guest
        kind = dice.randrange(9)
        if kind < 3:
            return dice.choice(NUMBERS)
        if kind == 3:
            return dice.choice(ENDS) & self.mask
        if kind == 4:
            return dice.choice((UNMAPPED, hole(guest.width), self.mask, self.mask - 7))
        if kind == 5:
            return dice.choice(self.frames) << dice.choice((0, 12))
        if kind == 6:
            return dice.getrandbits(guest.width.bits)
        return guest.data + dice.choice((0, 0, 8, 64, 4000))

    def fill(self) -> None:
        """Put such words, as 16, 32 and 64 bits, where the guest's pointers lead."""
        raw = bytearray()
        while len(raw) < DATA_BYTES:
            size = self.dice.choice((2, 4, 4, 8))
            raw += (self.value() & (1 << 8 * size) - 1).to_bytes(size, "little")
        self.guest.put(bytes(raw[:DATA_BYTES]))

    def arguments(self, number: int) -> tuple[int, ...]:
        """Registers; the first is mostly an operation that exists."""
        args = [self.value() for _ in range(HYPERCALLS[number].nr_args)]
        table = SUBOPS.get(HypercallNr(number))
        if table and self.dice.random() < 0.9:
            args[0] = int(self.dice.choice(list(table)))
            if self.dice.random() < 0.7:
                args[-1] = self.guest.data
        return tuple(args)


def attempt(guest: Guest, number: int, arguments: tuple[int, ...]) -> None:
    """Anything but these is a mistake of ours, and comes out."""
    with suppress(XenError, DomainCrash, Preempted):
        result = guest.call(number, *arguments)
        assert result is None or isinstance(result, int)


def live(attacker: Attacker) -> None:
    """Call until the domain is over, or has pulled its memory from under itself."""
    guest = attacker.guest
    for _ in range(CALLS_A_LIFE):
        if guest.dom.state is not DomainState.RUNNING:
            return
        try:
            attacker.fill()
        except XenError:
            return
        number = attacker.dice.choice(CALLS)
        attempt(guest, number, attacker.arguments(number))


@pytest.mark.parametrize("privileged", [False, True], ids=["guest", "dom0"])
@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_any_arguments_get_an_answer(width: Width, privileged: bool) -> None:
    for seed in range(LIVES):
        with guests(width, Width.X86_64) as (guest, _):
            guest.dom.privileged = privileged
            live(Attacker(guest, seed))
            audit(guest.host.frames, guest.machine.vmm.audit_subjects())
