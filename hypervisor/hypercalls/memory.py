"""memory_op: a domain's reservation of frames, and where things are (Xen's common/memory.c).

Batches of extents stop at the first that fails; the result is how many were done.
"""

from __future__ import annotations

import struct
from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.memory import (
    XenMachphysMapping,
    XenMachphysMfnList,
    XenmemOp,
    XenMemoryMap,
    XenMemoryReservation,
)
from hypervisor.abi.xen import HypercallNr
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Absent, SubOp, call_subop, hypercall, subops
from hypervisor.mm.frames import ALLOCATED
from hypervisor.mm.hole_map import HOLE
from hypervisor.x86.paging import PAGE_SHIFT

_OPERATION_BITS: Final = 6  # MEMOP_EXTENT_SHIFT: above it, how many extents were done before
_MAX_ORDER: Final = 9
_E820_RAM: Final = 1
_E820_ENTRY: Final = struct.Struct("<QQI")
_MACHPHYS_STRIDE: Final = 1 << 21  # one entry of the list for each 2 MB of the table


def _extents(caller: Caller, arg: XenMemoryReservation) -> list[int]:
    size = caller.width.word_bytes
    raw = caller.mem.read(arg.extent_start, arg.nr_extents * size)
    return [int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)]


def _checked(caller: Caller, arg: XenMemoryReservation) -> None:
    if arg.extent_order > _MAX_ORDER:
        raise XenError(Errno.EPERM, f"extents of 2^{arg.extent_order} frames")
    caller.require_self(arg.domid)


def decrease_reservation(caller: Caller, arg: XenMemoryReservation) -> int:
    """Give frames back. A frame still in use stops the batch where it stands."""
    _checked(caller, arg)
    for done, mfn in enumerate(_extents(caller, arg)):
        for frame in range(mfn, mfn + (1 << arg.extent_order)):
            if not _release(caller, frame):
                return done
    return arg.nr_extents


def _release(caller: Caller, mfn: int) -> bool:
    """Take `mfn` out of the caller's reservation; False if it is not in it."""
    frames = caller.host.frames
    if mfn >= frames.nr_frames or frames.owner[mfn] != caller.dom.domid:
        return False
    if not frames.flags[mfn] & ALLOCATED:
        return False
    caller.host.m2p.clear(mfn)
    frames.release_allocation(mfn)
    caller.dom.nr_frames -= 1
    return True


def populate_physmap(caller: Caller, arg: XenMemoryReservation) -> int:
    """Get frames for the pseudo-physical numbers listed; their machine numbers replace them."""
    _checked(caller, arg)
    return _allocate(caller, arg, _extents(caller, arg))


def increase_reservation(caller: Caller, arg: XenMemoryReservation) -> int:
    """Get more frames, without pseudo-physical numbers of their own."""
    _checked(caller, arg)
    return _allocate(caller, arg, None)


def _allocate(caller: Caller, arg: XenMemoryReservation, pfns: list[int] | None) -> int:
    size = caller.width.word_bytes
    count = 1 << arg.extent_order
    for done in range(arg.nr_extents):
        if caller.dom.nr_frames + count > caller.dom.max_frames:
            return done
        try:
            mfns = caller.host.frames.allocate_extent(caller.dom.domid, count)
        except XenError:
            return done
        caller.dom.nr_frames += count
        for offset, mfn in enumerate(mfns):
            if pfns is not None:
                caller.host.m2p.set(mfn, pfns[done] + offset)
        if arg.extent_start:
            at = arg.extent_start + done * size
            caller.mem.write(at, mfns[0].to_bytes(size, "little"))
    return arg.nr_extents


def machphys_mfn_list(caller: Caller, arg: XenMachphysMfnList) -> None:
    """The frames that hold the M2P, one for each 2 MB of it."""
    table = caller.host.m2p.table_frames(caller.width)
    step = _MACHPHYS_STRIDE >> PAGE_SHIFT
    mfns = table[::step][: arg.max_extents]
    size = caller.width.word_bytes
    caller.mem.write(arg.extent_start, b"".join(m.to_bytes(size, "little") for m in mfns))
    arg.nr_extents = len(mfns)


def machphys_mapping(caller: Caller, arg: XenMachphysMapping) -> None:
    """Where the M2P is mapped."""
    hole = HOLE[caller.width]
    arg.v_start = hole.m2p_vaddr
    arg.v_end = hole.windows_vaddr
    arg.max_mfn = caller.host.frames.nr_frames - 1


def memory_map(caller: Caller, arg: XenMemoryMap) -> None:
    """The pseudo-physical memory map: one stretch of RAM up to the domain's limit."""
    if arg.nr_entries < 1:
        raise XenError(Errno.EINVAL, "no room for an entry of the memory map")
    entry = _E820_ENTRY.pack(0, caller.dom.max_frames << PAGE_SHIFT, _E820_RAM)
    caller.mem.write(arg.buffer, entry)
    arg.nr_entries = 1


MEMORY_OPS: Final = subops(
    HypercallNr.MEMORY_OP,
    {
        XenmemOp.INCREASE_RESERVATION: SubOp(XenMemoryReservation, increase_reservation),
        XenmemOp.DECREASE_RESERVATION: SubOp(XenMemoryReservation, decrease_reservation),
        XenmemOp.POPULATE_PHYSMAP: SubOp(XenMemoryReservation, populate_physmap),
        XenmemOp.MAXIMUM_RAM_PAGE: SubOp(None, lambda caller: caller.host.frames.nr_frames - 1),
        XenmemOp.MACHPHYS_MFN_LIST: SubOp(XenMachphysMfnList, machphys_mfn_list, copy_back=True),
        XenmemOp.MACHPHYS_MAPPING: SubOp(XenMachphysMapping, machphys_mapping, copy_back=True),
        XenmemOp.MEMORY_MAP: SubOp(XenMemoryMap, memory_map, copy_back=True),
        XenmemOp.EXCHANGE: Absent(Errno.ENOSYS, "exchanging frames is not there yet"),
        XenmemOp.ADD_TO_PHYSMAP: Absent(Errno.ENOSYS, "for translated domains only"),
        XenmemOp.MACHINE_MEMORY_MAP: Absent(
            Errno.EPERM, "the machine's map is the hardware domain's"
        ),
    },
)


@hypercall(HypercallNr.MEMORY_OP, args=2)
def memory_op(caller: Caller, operation: int, vaddr: int) -> int:
    """Do one operation on the caller's reservation."""
    operation &= (1 << _OPERATION_BITS) - 1
    match operation:
        case XenmemOp.CURRENT_RESERVATION:
            _domid_argument(caller, vaddr)
            return caller.dom.nr_frames
        case XenmemOp.MAXIMUM_RESERVATION:
            _domid_argument(caller, vaddr)
            return caller.dom.max_frames
        case _:
            return call_subop(caller, MEMORY_OPS, operation, vaddr)


def _domid_argument(caller: Caller, vaddr: int) -> None:
    caller.require_self(int.from_bytes(caller.mem.read(vaddr, 2), "little"))
