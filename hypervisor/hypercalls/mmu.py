"""mmu_update and update_va_mapping: how a guest changes the entries of its page tables.

Each entry is validated by `mm` before the MMU can see it; the order of the checks, and so the error
of a request that is wrong twice, is Xen's (do_mmu_update, __do_update_va_mapping in arch/x86/mm.c).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, NoReturn

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.types import DOMID_IO, DOMID_SELF, DOMID_XEN
from hypervisor.abi.width import Width
from hypervisor.abi.xen import (
    UVMF_ALL,
    UVMF_FLUSHTYPE_MASK,
    UVMF_INVLPG,
    UVMF_LOCAL,
    UVMF_TLB_FLUSH,
    HypercallNr,
    MmuCommand,
    MmuUpdate,
)
from hypervisor.domain.domain import Domain
from hypervisor.hypercalls import mmu_batch
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import hypercall
from hypervisor.machine.state import CR3
from hypervisor.mm.frames import FrameType
from hypervisor.traps.current import Current
from hypervisor.x86.paging import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

_UPDATE: Final = struct.Struct("<QQ")  # struct mmu_update: ptr, val; the same in all widths
assert _UPDATE.size == layout(MmuUpdate, Width.X86_64).size
#: Plain ints: attributes of an enumeration cost more than the comparison.
_NORMAL: Final = int(MmuCommand.NORMAL_PT_UPDATE)
_MACHPHYS: Final = int(MmuCommand.MACHPHYS_UPDATE)
_PRESERVE_AD: Final = int(MmuCommand.PT_UPDATE_PRESERVE_AD)
_NO_TRANSLATE: Final = int(MmuCommand.PT_UPDATE_NO_TRANSLATE)
_L1: Final = int(FrameType.L1)
_M16: Final = 0xFFFF
_M32: Final = 0xFFFF_FFFF


# --- mmu_update
# -------------------------------------------------------------------------------------
@hypercall(HypercallNr.MMU_UPDATE, args=4)
def mmu_update(caller: Caller, vaddr: int, count: int, done_vaddr: int, foreign: int) -> int:
    """Apply `count` updates at `vaddr`; how many were done goes to `done_vaddr` unless null."""
    batch = mmu_batch.Batch(vaddr, count & _M32, done_vaddr, foreign & _M32)
    subject: _Subject | None = None  # whether the caller may is asked at the first update

    def find() -> None:
        table_owner, frame_owner = batch.foreign >> 16, batch.foreign & _M16
        if table_owner:
            caller.find(table_owner - 1)
        _find_foreign(caller, frame_owner)

    def permitted() -> _Subject:
        nonlocal subject
        if subject is None:
            subject = _subject(caller, batch.foreign)
        return subject

    def update(raw: bytes) -> None:
        ptr, val = _UPDATE.unpack(raw)
        _one_update(caller, permitted(), ptr, val)

    def update_many(first: int, nr: int) -> int:
        bulk = None if batch.foreign >> 16 else caller.dom.page_tables.bulk(nr)
        if bulk is None:
            return 0
        from hypervisor.hypercalls import mmu_bulk

        raw = caller.mem.read(first, nr * _UPDATE.size)
        return mmu_bulk.update(caller, bulk, permitted().owner, first, raw)

    return mmu_batch.run(caller, batch, _UPDATE.size, find, update, update_many)


class _Subject(NamedTuple):
    """Whose tables change, and whose frames leaves may name."""

    dom: Domain
    owner: int


def _subject(caller: Caller, foreign: int) -> _Subject:
    """Both halves of the last argument: the upper is 0 for the caller, else a domain's number + 1.

    Another domain's tables are for the privileged: a builder fills them before it runs.
    """
    table_owner = foreign >> 16
    dom = caller.resolve(table_owner - 1) if table_owner else caller.dom
    return _Subject(dom, frame_owner(caller, foreign & _M16))


def _find_foreign(caller: Caller, domid: int) -> None:
    """The domain must exist, and a domain does not name itself but by DOMID_SELF (get_pg_owner)."""
    if domid in (DOMID_SELF, DOMID_IO, DOMID_XEN):
        return
    if domid == caller.dom.domid:
        raise XenError(Errno.ESRCH, f"d{domid} names itself as a foreign domain")
    caller.find(domid)


def frame_owner(caller: Caller, domid: int) -> int:
    """Whose frames are meant, if the caller may act on them.

    DOMID_IO is let through as one that owns nothing: there are no devices here. DOMID_XEN is the
    same to a privileged domain: what Xen shows such a one under that name, here nobody has.
    """
    _find_foreign(caller, domid)
    if domid == DOMID_SELF:
        return caller.dom.domid
    if domid == DOMID_IO:
        return DOMID_IO
    if domid == DOMID_XEN:
        if not caller.dom.privileged:
            raise XenError(Errno.EPERM, f"Xen's frames are not for d{caller.dom.domid}")
        return DOMID_IO
    return caller.resolve(domid).domid


def _one_update(caller: Caller, subject: _Subject, ptr: int, val: int) -> None:
    command = ptr & (subject.dom.page_tables.mode.entry_bytes - 1)
    maddr = ptr - command
    if command in (_NORMAL, _PRESERVE_AD, _NO_TRANSLATE):
        _write_word(caller, subject, maddr, val, preserve_ad=command == _PRESERVE_AD)
    elif command == _MACHPHYS:
        if subject.dom is not caller.dom:
            raise XenError(Errno.EPERM, "the M2P is changed for one's own domain")
        mfn = maddr >> PAGE_SHIFT
        caller.host.frames.get_page(mfn, subject.owner)
        caller.host.frames.put_page(mfn)
        caller.host.m2p.set(mfn, val)
    else:
        raise XenError(Errno.ENOSYS, f"mmu_update command {command} is unknown")


def _write_word(
    caller: Caller, subject: _Subject, maddr: int, val: int, *, preserve_ad: bool
) -> None:
    """Write a page-table entry, or a word of ordinary memory, of the domain whose tables change."""
    dom, owner = subject
    frames = caller.host.frames
    tables = dom.page_tables
    mfn = maddr >> PAGE_SHIFT
    size = tables.mode.entry_bytes
    if size == 4:
        val &= _M32
    frames.get_page(mfn, dom.domid)
    try:
        kind = tables.entry_type(mfn)
        if kind is not FrameType.NONE:
            if kind is not FrameType.L1 and owner != dom.domid:
                raise XenError(Errno.EINVAL, f"{frames.describe(mfn)}: tables are not shared")
            tables.update_entry(maddr, val, preserve_ad=preserve_ad, owner=owner)
            return
        tables.get_page_type(mfn, FrameType.WRITABLE)
        caller.host.memory.write(maddr, val.to_bytes(size, "little"))
        caller.host.cpu.code_written(maddr, size)
        tables.put_page_type(mfn)
    finally:
        frames.put_page(mfn)


# --- update_va_mapping
# ------------------------------------------------------------------------------
@hypercall(HypercallNr.UPDATE_VA_MAPPING, args=4)
def update_va_mapping(caller: Caller, vaddr: int, a: int, b: int, c: int) -> int:
    """Set the leaf entry of `vaddr`. 32-bit callers pass the entry in two halves."""
    current = caller.current
    dom = current.dom
    if dom.page_tables.is_64:
        return _update_va_mapping(caller, current, dom.domid, vaddr, a, b)
    return _update_va_mapping(caller, current, dom.domid, vaddr, a | b << 32, c)


@hypercall(HypercallNr.UPDATE_VA_MAPPING_OTHERDOMAIN, args=5)
def update_va_mapping_otherdomain(
    caller: Caller, vaddr: int, a: int, b: int, c: int, d: int
) -> int:
    """The same with a frame of another domain."""
    entry, flags, domid = (a, b, c) if caller.width.is_64 else (a | b << 32, c, d)
    owner = frame_owner(caller, domid & _M16)
    return _update_va_mapping(caller, caller.current, owner, vaddr, entry, flags)


def _update_va_mapping(
    caller: Caller, current: Current, owner: int, vaddr: int, entry: int, flags: int
) -> int:
    leaf = current.mem.find_leaf(current.state.q[CR3], vaddr)
    if leaf is None or current.frames.type[leaf >> PAGE_SHIFT] != _L1:
        _refuse_address(current, vaddr)
    tables = current.dom.page_tables
    tables.update_leaf(leaf, entry & tables.entry_mask, owner)
    if flags & UVMF_FLUSHTYPE_MASK:
        _flush_as_asked(caller, vaddr, flags)
    return 0


def _refuse_address(current: Current, vaddr: int) -> NoReturn:
    """There is no leaf table of the guest's: none is found in Xen's region either."""
    is_guests = current.mem.is_guest_range(vaddr & ~PAGE_MASK, PAGE_SIZE)
    where = "has no L1 table" if is_guests else "is in Xen's region"
    raise XenError(Errno.EINVAL, f"{vaddr:#x} {where}")


def _flush_as_asked(caller: Caller, vaddr: int, flags: int) -> None:
    """UVMF_*: what to flush, and on which vCPUs; there is one CPU, so who is all the same."""
    kind = flags & UVMF_FLUSHTYPE_MASK
    if kind == UVMF_TLB_FLUSH:
        caller.host.tlb.all()
    elif kind == UVMF_INVLPG:
        caller.host.tlb.page(vaddr)
    else:
        return
    vcpumask = flags & ~UVMF_FLUSHTYPE_MASK
    if vcpumask not in (UVMF_LOCAL, UVMF_ALL):
        caller.mem.read(vcpumask, caller.width.word_bytes)
