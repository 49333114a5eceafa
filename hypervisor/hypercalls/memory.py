"""memory_op: a domain's reservation of frames, and where things are (Xen's common/memory.c).

The three operations on extents report no errors, only how many extents were done: a structure that
cannot be read, a domain that is not there or not the caller's to touch, a count or an order beyond
the limits are all "none". The bits of the operation above the sixth say how many were done in
earlier pieces of a long call, as in Xen.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.memory import (
    XenMachphysMapping,
    XenMachphysMfnList,
    XenmemOp,
    XenMemoryExchange,
    XenMemoryMap,
    XenMemoryReservation,
)
from hypervisor.abi.xen import HypercallNr, SharedInfo
from hypervisor.domain.domain import Domain
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.memory_exchange import MAX_ORDER, exchange
from hypervisor.hypercalls.table import (
    Absent,
    Preempted,
    Row,
    SubOp,
    call_subop,
    hypercall,
    subops,
)
from hypervisor.mm.frames import ALLOCATED, FrameTable
from hypervisor.mm.hole_map import HOLE
from hypervisor.mm.pagetables import UNLIMITED
from hypervisor.x86.paging import PAGE_SHIFT, PAGE_SIZE

MEMOP_EXTENT_SHIFT: Final = 6  # above it in the operation: how many extents were done before
MAX_EXTENTS: Final = 0xFFFF_FFFF >> MEMOP_EXTENT_SHIFT
_OPERATION_MASK: Final = (1 << MEMOP_EXTENT_SHIFT) - 1
_FRAMES_PER_PIECE: Final = 1024
_ENTRIES_PER_PIECE: Final = 16384  # of page tables that go with frames given back
_E820_RAM: Final = 1
_E820_ENTRY: Final = struct.Struct("<QQI")
_MACHPHYS_STRIDE: Final = 1 << 21  # one entry of the list for each 2 MB of the table
_ADDRESS_BITS: Final = 0xFF  # XENMEMF_address_bits: the low byte of mem_flags


# --- extents
# -----------------------------------------------------------------------------------------
class _Stop(Exception):
    """This extent cannot be done, so none behind it is."""


Extent = Callable[[Caller, Domain, XenMemoryReservation, int], None]


def _on_extents(caller: Caller, operation: int, done: int, vaddr: int) -> int:
    """Do one extent after the other; the result is how many were done in all."""
    found = _reservation(caller, vaddr)
    if found is None:
        return done
    arg, dom = found
    if not done < arg.nr_extents <= MAX_EXTENTS or arg.extent_order > MAX_ORDER:
        return done
    if 0 < arg.mem_flags & _ADDRESS_BITS <= PAGE_SHIFT or not _is_list_okay(caller, operation, arg):
        return done
    do_one = _EXTENT_OPS[operation]
    tables = dom.page_tables
    tables.budget = _ENTRIES_PER_PIECE
    piece = max(1, _FRAMES_PER_PIECE >> arg.extent_order)
    try:
        if not tables.reap():
            raise Preempted(operation | done << MEMOP_EXTENT_SHIFT, vaddr)
        for idx in range(done, arg.nr_extents):
            if idx == done + piece or tables.doomed:
                raise Preempted(operation | idx << MEMOP_EXTENT_SHIFT, vaddr)
            try:
                do_one(caller, dom, arg, idx)
            except (_Stop, XenError):
                return idx
    finally:
        tables.budget = UNLIMITED
    return arg.nr_extents


def _reservation(caller: Caller, vaddr: int) -> tuple[XenMemoryReservation, Domain] | None:
    """The argument and the domain it names; None when either is refused."""
    shape = layout(XenMemoryReservation, caller.width)
    try:
        arg: XenMemoryReservation = shape.unpack_from(caller.mem.read(vaddr, shape.size))
        return arg, caller.resolve(arg.domid)
    except XenError:
        return None


def _is_list_okay(caller: Caller, operation: int, arg: XenMemoryReservation) -> bool:
    """guest_handle_subrange_okay; only increase_reservation does without a list."""
    if operation == XenmemOp.INCREASE_RESERVATION and not arg.extent_start:
        return True
    return caller.mem.is_guest_handle(arg.extent_start, arg.nr_extents * caller.width.word_bytes)


def decrease_reservation(caller: Caller, dom: Domain, arg: XenMemoryReservation, idx: int) -> None:
    """Give an extent back. A frame that something still names is freed when nothing does.

    Half an extent is given back when one of its frames is not the domain's, as in Xen.
    """
    mfn = _extent(caller, arg, idx)
    for frame in range(mfn, mfn + (1 << arg.extent_order)):
        _remove_page(caller, dom, frame)


def _remove_page(caller: Caller, dom: Domain, mfn: int) -> None:
    """guest_remove_page: a frame that is pinned or mapped stays, with its number, until it is
    neither."""
    frames = caller.host.frames
    frames.get_page(mfn, dom.domid)
    if frames.flags[mfn] & ALLOCATED:
        frames.release_allocation(mfn)
    frames.put_page(mfn)


def populate_physmap(caller: Caller, dom: Domain, arg: XenMemoryReservation, idx: int) -> None:
    """Get frames for a pseudo-physical number, whose machine number replaces it in the list.

    When that cannot be written the extent counts as not done, and the frames stay, as in Xen.
    """
    pfn = _extent(caller, arg, idx)
    mfns = _allocate(caller, dom, arg)
    for offset, mfn in enumerate(mfns):
        caller.host.m2p.set(mfn, pfn + offset)
    _set_extent(caller, arg, idx, mfns[0])


def increase_reservation(caller: Caller, dom: Domain, arg: XenMemoryReservation, idx: int) -> None:
    """Get more frames, without pseudo-physical numbers of their own."""
    mfns = _allocate(caller, dom, arg)
    if arg.extent_start:
        _set_extent(caller, arg, idx, mfns[0])


def _allocate(caller: Caller, dom: Domain, arg: XenMemoryReservation) -> list[int]:
    frames = caller.host.frames
    count = 1 << arg.extent_order
    _check_limit(frames, dom, count)
    return frames.allocate_extent(dom.domid, count)


def _check_limit(frames: FrameTable, dom: Domain, count: int) -> None:
    if frames.nr_held(dom.domid) + count > dom.max_frames:
        raise _Stop


def _extent(caller: Caller, arg: XenMemoryReservation, idx: int) -> int:
    size = caller.width.word_bytes
    return int.from_bytes(caller.mem.read(arg.extent_start + idx * size, size), "little")


def _set_extent(caller: Caller, arg: XenMemoryReservation, idx: int, mfn: int) -> None:
    size = caller.width.word_bytes
    caller.mem.write(arg.extent_start + idx * size, mfn.to_bytes(size, "little"))


_EXTENT_OPS: Final[dict[int, Extent]] = {
    XenmemOp.INCREASE_RESERVATION: increase_reservation,
    XenmemOp.DECREASE_RESERVATION: decrease_reservation,
    XenmemOp.POPULATE_PHYSMAP: populate_physmap,
}


# --- questions
# ---------------------------------------------------------------------------------------
def _about(caller: Caller, operation: int, vaddr: int) -> int:
    """The size of a reservation, now and at most, or the highest pseudo-physical number."""
    dom = caller.resolve(int.from_bytes(caller.mem.read(vaddr, 2), "little"))
    match operation:
        case XenmemOp.CURRENT_RESERVATION:
            return caller.host.frames.nr_held(dom.domid)
        case XenmemOp.MAXIMUM_RESERVATION:
            return dom.max_frames
        case _:
            return _maximum_gpfn(caller, dom)


def _maximum_gpfn(caller: Caller, dom: Domain) -> int:
    """As the guest itself says, in shared_info (arch_get_max_pfn)."""
    shape = layout(SharedInfo, dom.width)
    page = caller.host.memory.frame(dom.shared_info_mfn)
    max_pfn: int = shape.unpack_from(page).arch.max_pfn
    return max_pfn - 1


def machphys_mfn_list(caller: Caller, arg: XenMachphysMfnList) -> None:
    """The frames that hold the M2P, one for each 2 MB of it."""
    table = caller.host.m2p.table_frames(caller.width)
    step = _MACHPHYS_STRIDE >> PAGE_SHIFT
    mfns = table[::step][: arg.max_extents]
    size = caller.width.word_bytes
    caller.mem.write(arg.extent_start, b"".join(m.to_bytes(size, "little") for m in mfns))
    arg.nr_extents = len(mfns)


def machphys_mapping(caller: Caller, arg: XenMachphysMapping) -> None:
    """Where the M2P is mapped; `max_mfn` is the last frame of this machine."""
    hole = HOLE[caller.width]
    arg.v_start = hole.m2p_vaddr
    arg.v_end = hole.windows_vaddr
    arg.max_mfn = caller.host.frames.nr_frames - 1


def memory_map(caller: Caller, arg: XenMemoryMap) -> None:
    """The pseudo-physical memory map: one stretch of RAM up to the domain's limit."""
    if arg.nr_entries < 1:
        raise XenError(Errno.EINVAL, "no room for an entry of the memory map")
    entry = _E820_ENTRY.pack(0, caller.dom.max_frames * PAGE_SIZE, _E820_RAM)
    caller.mem.write(arg.buffer, entry)
    arg.nr_entries = 1


_TRANSLATED: Final = Absent(Errno.EACCES, "for translated domains only")
_PRIVILEGED: Final = Absent(Errno.EPERM, "for a toolstack, which here is not a domain")
_NOT_HERE: Final = Absent(Errno.ENOSYS, "HVM's memory sharing, paging and populate-on-demand")

MEMORY_OPS: Final[dict[int, Row]] = {
    XenmemOp.INCREASE_RESERVATION: SubOp(XenMemoryReservation, increase_reservation),
    XenmemOp.DECREASE_RESERVATION: SubOp(XenMemoryReservation, decrease_reservation),
    XenmemOp.MAXIMUM_RAM_PAGE: SubOp(None, lambda caller: caller.host.frames.nr_frames),
    XenmemOp.CURRENT_RESERVATION: SubOp(None, _about),
    XenmemOp.MAXIMUM_RESERVATION: SubOp(None, _about),
    XenmemOp.MACHPHYS_MFN_LIST: SubOp(XenMachphysMfnList, machphys_mfn_list, copy_back=True),
    XenmemOp.POPULATE_PHYSMAP: SubOp(XenMemoryReservation, populate_physmap),
    XenmemOp.ADD_TO_PHYSMAP: _TRANSLATED,
    XenmemOp.MEMORY_MAP: SubOp(XenMemoryMap, memory_map, copy_back=True),
    XenmemOp.MACHINE_MEMORY_MAP: Absent(Errno.EPERM, "the machine's map is the hardware domain's"),
    XenmemOp.EXCHANGE: SubOp(XenMemoryExchange, exchange),
    XenmemOp.MACHPHYS_MAPPING: SubOp(XenMachphysMapping, machphys_mapping, copy_back=True),
    XenmemOp.SET_MEMORY_MAP: _PRIVILEGED,
    XenmemOp.MAXIMUM_GPFN: SubOp(None, _about),
    XenmemOp.REMOVE_FROM_PHYSMAP: _TRANSLATED,
    XenmemOp.SET_POD_TARGET: _PRIVILEGED,
    XenmemOp.GET_POD_TARGET: _PRIVILEGED,
    XenmemOp.GET_SHARING_FREED_PAGES: _NOT_HERE,
    XenmemOp.GET_SHARING_SHARED_PAGES: _NOT_HERE,
    XenmemOp.PAGING_OP: _NOT_HERE,
    XenmemOp.ACCESS_OP: _NOT_HERE,
    XenmemOp.SHARING_OP: _NOT_HERE,
    XenmemOp.ADD_TO_PHYSMAP_BATCH: _TRANSLATED,
    XenmemOp.CLAIM_PAGES: _PRIVILEGED,
    XenmemOp.MACHPHYS_COMPAT_MFN_LIST: SubOp(XenMachphysMfnList, machphys_mfn_list, copy_back=True),
    XenmemOp.GET_VNUMAINFO: Absent(Errno.EOPNOTSUPP, "no virtual NUMA topology"),
    XenmemOp.RESERVED_DEVICE_MEMORY_MAP: Absent(Errno.ENOSYS, "no devices"),
    XenmemOp.ACQUIRE_RESOURCE: _PRIVILEGED,
}
subops(HypercallNr.MEMORY_OP, MEMORY_OPS)

_ABOUT: Final = frozenset(
    {XenmemOp.CURRENT_RESERVATION, XenmemOp.MAXIMUM_RESERVATION, XenmemOp.MAXIMUM_GPFN}
)


@hypercall(HypercallNr.MEMORY_OP, args=2)
def memory_op(caller: Caller, command: int, vaddr: int) -> int:
    """Do one operation on the caller's reservation."""
    operation, done = command & _OPERATION_MASK, command >> MEMOP_EXTENT_SHIFT
    if operation in _EXTENT_OPS:
        return _on_extents(caller, operation, done, vaddr)
    if done:
        raise XenError(Errno.EINVAL, f"{done} extents were done of an operation without extents")
    if operation in _ABOUT:
        return _about(caller, operation, vaddr)
    if operation == XenmemOp.EXCHANGE:
        return exchange(caller, vaddr)
    return call_subop(caller, MEMORY_OPS, operation, vaddr)
