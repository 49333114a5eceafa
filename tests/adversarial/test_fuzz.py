"""Thousands of hypercalls that no sane kernel makes: nobody but their maker is hurt.

Whatever comes back, comes back to the guest: an exception out of the dispatcher is a bug. After
every hundred or so the frame table is recounted and the neighbour's memory is compared.
"""

from __future__ import annotations

import random

import pytest

from hypervisor.abi.layout import layout
from hypervisor.abi.memory import XenmemOp, XenMemoryReservation
from hypervisor.abi.types import DOMID_IO, DOMID_SELF
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr, MmuextCmd, MmuextOp, MmuUpdate
from tests.support.attacker import Attacker, attacker

WIDTHS = pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
CALLS = 2400
CHECK_EVERY = 120
SPARE = 16

#: Called more often than the rest, as there is more to get wrong.
LIKELY = (
    HypercallNr.MMU_UPDATE,
    HypercallNr.SET_GDT,
    HypercallNr.UPDATE_DESCRIPTOR,
    HypercallNr.MEMORY_OP,
    HypercallNr.MULTICALL,
    HypercallNr.UPDATE_VA_MAPPING,
    HypercallNr.GRANT_TABLE_OP,
    HypercallNr.VCPU_OP,
    HypercallNr.MMUEXT_OP,
    HypercallNr.SCHED_OP,
    HypercallNr.EVENT_CHANNEL_OP,
)
BY_OPERATION = (
    HypercallNr.MEMORY_OP,
    HypercallNr.GRANT_TABLE_OP,
    HypercallNr.SCHED_OP,
    HypercallNr.EVENT_CHANNEL_OP,
    HypercallNr.XEN_VERSION,
    HypercallNr.PHYSDEV_OP,
    HypercallNr.CALLBACK_OP,
)


def random_call(villain: Attacker, rng: random.Random, values: list[int]) -> tuple[int, list[int]]:
    """A number and arguments, more often than not of the right shape."""
    data = villain.guest.data
    number = rng.choice((rng.randrange(64), *LIKELY))
    args = [rng.choice(values) for _ in range(5)]
    if rng.random() < 0.6:
        args[rng.randrange(5)] = data + 8 * rng.randrange(4)
    if number in (HypercallNr.MMU_UPDATE, HypercallNr.MMUEXT_OP) and rng.random() < 0.7:
        who = rng.choice((DOMID_SELF, DOMID_SELF, villain.neighbour.dom.domid, DOMID_IO))
        args = [data, rng.choice((1, 2, 3, 4, 1 << 31)), rng.choice((0, data + 1024)), who, 0]
    elif number in BY_OPERATION and rng.random() < 0.8:
        args[:3] = [rng.randrange(34), data, 1]
    elif number == HypercallNr.VCPU_OP:
        args[:3] = [rng.randrange(16), rng.choice((0, 0, 1, 1 << 31)), data]
    return number, args


@WIDTHS
def test_random_hypercalls(width: Width) -> None:
    rng = random.Random(width.name)
    with attacker(width) as villain:
        for turn in range(CALLS):
            if turn % CHECK_EVERY == 0:
                villain.check()
                values = villain.values(rng)
            villain.fill(rng, values)
            villain.call(*_flat(random_call(villain, rng, values)))
            villain.revive()
        villain.check()


def _flat(call: tuple[int, list[int]]) -> list[int]:
    return [call[0], *call[1]]


@WIDTHS
def test_random_page_tables(width: Width) -> None:
    """Requests that are nearly right, on frames that are tables, were, or will be."""
    rng = random.Random(width.name)
    with attacker(width) as villain:
        for turn in range(CALLS):
            if turn % CHECK_EVERY == 0:
                villain.check()
            if villain.revive() or turn == 0:
                villain.unmap_spare_frames(SPARE)
            frames = _frames_of_interest(villain)
            rng.choice((_update, _update, _update, _operate, _balloon))(villain, rng, frames)
        villain.check()


def _frames_of_interest(villain: Attacker) -> list[int]:
    """The last frames of its memory, which nothing uses yet, and its first tables."""
    p2m = villain.guest.dom.p2m
    types = villain.host.frames.type
    return p2m[-SPARE:] + [mfn for mfn in p2m[:40] if types[mfn] > 1][:8]


def _update(villain: Attacker, rng: random.Random, frames: list[int]) -> None:
    size = villain.guest.dom.page_tables.mode.entry_bytes
    shape = layout(MmuUpdate, villain.width)
    count = rng.choice((1, 1, 2, 5))
    requests = b""
    for _ in range(count):
        slot = rng.choice((0, 1, 2, 3, 4, 256, 428, 500, 511))
        ptr = (rng.choice(frames) << 12) + slot * size | rng.choice((0, 0, 0, 2))
        requests += shape.pack(MmuUpdate(ptr, rng.choice(frames) << 12 | rng.choice((0, 1, 3, 7))))
    vaddr = villain.guest.put(requests)
    villain.call(HypercallNr.MMU_UPDATE, vaddr, count, 0, DOMID_SELF)


def _operate(villain: Attacker, rng: random.Random, frames: list[int]) -> None:
    command = rng.choice((*range(6), MmuextCmd.UNPIN_TABLE, 15, 16, 17))
    op = MmuextOp(command, rng.choice(frames), rng.choice(frames))
    vaddr = villain.guest.put(layout(MmuextOp, villain.width).pack(op))
    villain.call(HypercallNr.MMUEXT_OP, vaddr, 1, 0, DOMID_SELF)


def _balloon(villain: Attacker, rng: random.Random, frames: list[int]) -> None:
    word = villain.width.word_bytes
    extent = villain.guest.put(rng.choice(frames).to_bytes(word, "little"), 256)
    arg = XenMemoryReservation(extent, 1, 0, 0, DOMID_SELF)
    vaddr = villain.guest.put(layout(XenMemoryReservation, villain.width).pack(arg))
    operation = rng.choice((XenmemOp.DECREASE_RESERVATION, XenmemOp.POPULATE_PHYSMAP))
    villain.call(HypercallNr.MEMORY_OP, operation, vaddr)
