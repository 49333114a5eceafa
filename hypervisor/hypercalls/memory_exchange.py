"""XENMEM_exchange: frames for as many others, smaller ones for a large one or the other way round.

A guest uses it to get frames that lie side by side. It works through chunks, each the larger of the
two extents: the input frames must be held by nothing but the domain's reservation, the output is
taken before they are given back, so a chunk that fails changes nothing, and `nr_exchanged` tells
how many input extents are gone (memory_exchange in Xen's common/memory.c).
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.memory import XenmemOp, XenMemoryExchange, XenMemoryReservation
from hypervisor.domain.domain import Domain
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Preempted
from hypervisor.mm.frames import ALLOCATED

MAX_ORDER: Final = 9  # CONFIG_DOMU_MAX_ORDER
_FRAMES_PER_PIECE: Final = 1024
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF


def exchange(caller: Caller, vaddr: int) -> int:
    """Exchange extents. Whatever comes of it, `nr_exchanged` is written back."""
    shape = layout(XenMemoryExchange, caller.width)
    arg: XenMemoryExchange = shape.unpack_from(caller.mem.read(vaddr, shape.size))
    try:
        is_done = _exchange(caller, arg)
    finally:
        size = shape.size_of("nr_exchanged")
        raw = (arg.nr_exchanged & _M64).to_bytes(8, "little")[:size]
        caller.mem.write(vaddr + shape.offset("nr_exchanged"), raw)
    if not is_done:
        raise Preempted(XenmemOp.EXCHANGE, vaddr)
    return 0


def _exchange(caller: Caller, arg: XenMemoryExchange) -> bool:
    """Do chunks until all are done, or a piece of them (False). Raises XenError."""
    _check(caller, arg)
    dom = caller.resolve(arg.in_.domid)
    order = max(arg.in_.extent_order, arg.out.extent_order)
    in_per_chunk = 1 << order - arg.in_.extent_order
    chunk = first = arg.nr_exchanged // in_per_chunk
    piece = max(1, _FRAMES_PER_PIECE >> order)
    try:
        while chunk < arg.in_.nr_extents // in_per_chunk:
            if chunk == first + piece:
                return False
            _exchange_chunk(caller, dom, arg, chunk, order)
            chunk += 1
    finally:
        arg.nr_exchanged = chunk * in_per_chunk
    arg.nr_exchanged = arg.in_.nr_extents
    return True


def _check(caller: Caller, arg: XenMemoryExchange) -> None:
    """The sizes and the lists. Raises XenError(EPERM, EINVAL, EFAULT)."""
    given, wanted = arg.in_, arg.out
    if max(given.extent_order, wanted.extent_order) > MAX_ORDER:
        raise XenError(Errno.EPERM, f"extents of order {given.extent_order}, {wanted.extent_order}")
    nr_given = given.nr_extents << given.extent_order
    nr_wanted = wanted.nr_extents << wanted.extent_order
    if arg.nr_exchanged > given.nr_extents or given.domid != wanted.domid:
        raise XenError(
            Errno.EINVAL, f"{arg.nr_exchanged} done of {given.nr_extents}, d{wanted.domid}"
        )
    if nr_given != nr_wanted or nr_given > _M64:
        raise XenError(Errno.EINVAL, f"{nr_given:#x} frames for {nr_wanted:#x}")
    done = arg.nr_exchanged << given.extent_order >> wanted.extent_order
    for extents, first in ((given, arg.nr_exchanged), (wanted, done)):
        size = caller.width.word_bytes
        start = extents.extent_start + first * size
        if not caller.mem.is_guest_handle(start, (extents.nr_extents - first) * size):
            raise XenError(Errno.EFAULT, f"a list of extents at {extents.extent_start:#x}")


def _exchange_chunk(
    caller: Caller, dom: Domain, arg: XenMemoryExchange, chunk: int, order: int
) -> None:
    frames = caller.host.frames
    old = _stealable(caller, dom, arg.in_, chunk, order)
    out_order = arg.out.extent_order
    new: list[list[int]] = []  # grows one by one: a refusal gives back what there is
    try:
        for _ in range(1 << order - out_order):
            new += [frames.allocate_extent(dom.domid, 1 << out_order)]
    except XenError:
        for extent in new:
            for mfn in extent:
                frames.release_allocation(mfn)
        raise
    for mfn in old:
        frames.release_allocation(mfn)
    _announce(caller, arg.out, new, chunk << order - out_order)


def _stealable(
    caller: Caller, dom: Domain, given: XenMemoryReservation, chunk: int, order: int
) -> list[int]:
    """The frames of a chunk's input, each once and held by nothing but the reservation."""
    frames = caller.host.frames
    per_chunk = 1 << order - given.extent_order
    found: dict[int, None] = {}
    for idx in range(chunk * per_chunk, (chunk + 1) * per_chunk):
        start = _word(caller, given.extent_start, idx)
        for mfn in range(start, start + (1 << given.extent_order)):
            is_its = mfn < frames.nr_frames and frames.owner[mfn] == dom.domid
            is_free = is_its and frames.flags[mfn] == ALLOCATED and frames.ref_count[mfn] == 1
            if not is_free or mfn in found:
                raise XenError(Errno.EINVAL, f"{frames.describe(mfn)}; cannot be exchanged")
            found[mfn] = None
    return list(found)


def _announce(
    caller: Caller, wanted: XenMemoryReservation, extents: list[list[int]], first: int
) -> None:
    """Enter the new frames under the guest's numbers for them, and tell it theirs.

    An extent whose number cannot be read or written stays the guest's, without a word to it.
    """
    fault: XenError | None = None
    for idx, mfns in enumerate(extents, first):
        try:
            pfn = _word(caller, wanted.extent_start, idx)
            for offset, mfn in enumerate(mfns):
                caller.host.m2p.set(mfn, pfn + offset)
            size = caller.width.word_bytes
            caller.mem.write(wanted.extent_start + idx * size, mfns[0].to_bytes(size, "little"))
        except XenError as error:
            fault = error
    if fault is not None:
        raise fault


def _word(caller: Caller, start: int, idx: int) -> int:
    size = caller.width.word_bytes
    return int.from_bytes(caller.mem.read(start + idx * size, size), "little")
