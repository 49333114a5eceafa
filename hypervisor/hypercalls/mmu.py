"""mmu_update, update_va_mapping and mmuext_op: how a guest changes its page tables.

Each takes batches or single changes that `mm` validates. A batch stops at the first refusal and
says how many were done before it (do_mmu_update, do_mmuext_op in Xen's arch/x86/mm.c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.width import Width
from hypervisor.abi.xen import (
    UVMF_FLUSHTYPE_MASK,
    UVMF_INVLPG,
    UVMF_TLB_FLUSH,
    HypercallNr,
    MmuCommand,
    MmuextCmd,
    MmuextOp,
    MmuUpdate,
)
from hypervisor.domain.domain import Domain
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Absent, Row, SubOp, hypercall, subops
from hypervisor.mm.descriptors import MAX_LDT_ENTRIES
from hypervisor.mm.frames import FrameType
from hypervisor.mm.walk import walk
from hypervisor.x86.paging import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

MMU_UPDATE_PREEMPTED: Final = 1 << 31  # Xen's own, in a count (arch/x86/include/asm/mm.h)
_UPDATE_BYTES: Final = layout(MmuUpdate, Width.X86_64).size  # the same in all widths
#: Plain ints: attributes of an enumeration cost more than the comparison.
_NORMAL, _MACHPHYS, _PRESERVE_AD = map(int, MmuCommand)


# --- mmu_update
# -------------------------------------------------------------------------------------
@hypercall(HypercallNr.MMU_UPDATE, args=4)
def mmu_update(caller: Caller, vaddr: int, count: int, done_vaddr: int, domid: int) -> int:
    """Apply `count` updates at `vaddr`; how many were done goes to `done_vaddr` unless null."""
    target = _foreign(caller, domid)
    count &= ~MMU_UPDATE_PREEMPTED & 0xFFFF_FFFF
    done = 0
    try:
        shape = layout(MmuUpdate, caller.width)
        for idx in range(count):
            raw = caller.mem.read(vaddr + idx * _UPDATE_BYTES, _UPDATE_BYTES)
            update = shape.unpack_from(raw)
            _one_update(caller, target, update.ptr, update.val)
            done += 1
    finally:
        if done_vaddr:
            caller.mem.write(done_vaddr, done.to_bytes(4, "little"))
    return 0


def _foreign(caller: Caller, domid: int) -> Domain:
    """Whose frames are meant: the low half of `foreigndom`; the high half names whose tables."""
    if domid >> 16:
        caller.resolve((domid >> 16) - 1)
        raise XenError(Errno.EPERM, "page tables of another domain")
    return caller.resolve(domid & 0xFFFF)


def _one_update(caller: Caller, target: Domain, ptr: int, val: int) -> None:
    command = ptr & 3
    ptr &= ~3
    if command in (_NORMAL, _PRESERVE_AD):
        _write_word(caller, target, ptr, val, preserve_ad=command == _PRESERVE_AD)
    elif command == _MACHPHYS:
        mfn = ptr >> PAGE_SHIFT
        caller.host.frames.get_page(mfn, target.domid)
        caller.host.frames.put_page(mfn)
        caller.host.m2p.set(mfn, val)
    else:
        raise XenError(Errno.ENOSYS, f"mmu_update command {command} is unknown")


def _write_word(caller: Caller, target: Domain, maddr: int, val: int, *, preserve_ad: bool) -> None:
    """Write a page-table entry, or a word of ordinary memory, of the caller's own."""
    frames = caller.host.frames
    tables = caller.dom.page_tables
    mfn = maddr >> PAGE_SHIFT
    if tables.mode.entry_bytes == 8 and maddr & 7:
        raise XenError(Errno.EINVAL, f"entry address {maddr:#x} is not aligned")
    frames.get_page(mfn, caller.dom.domid)
    try:
        if tables.entry_type(mfn) is not FrameType.NONE:
            tables.update_entry(maddr, val, preserve_ad=preserve_ad, owner=target.domid)
            return
        tables.get_page_type(mfn, FrameType.WRITABLE)
        if tables.mode.entry_bytes == 8:
            caller.host.memory.u64[maddr >> 3] = val
        else:
            caller.host.memory.u32[maddr >> 2] = val & 0xFFFF_FFFF
        caller.host.cpu.code_written(maddr, 8)
        tables.put_page_type(mfn)
    finally:
        frames.put_page(mfn)


# --- update_va_mapping
# ------------------------------------------------------------------------------
@hypercall(HypercallNr.UPDATE_VA_MAPPING, args=4)
def update_va_mapping(caller: Caller, vaddr: int, a: int, b: int, c: int) -> int:
    """Set the leaf entry of `vaddr`. 32-bit callers pass the entry in two halves."""
    entry, flags = (a, b) if caller.width.is_64 else (a | b << 32, c)
    return _update_va_mapping(caller, caller.dom, vaddr, entry, flags)


@hypercall(HypercallNr.UPDATE_VA_MAPPING_OTHERDOMAIN, args=5)
def update_va_mapping_otherdomain(
    caller: Caller, vaddr: int, a: int, b: int, c: int, d: int
) -> int:
    """The same with a frame of another domain."""
    entry, flags, domid = (a, b, c) if caller.width.is_64 else (a | b << 32, c, d)
    return _update_va_mapping(caller, caller.resolve(domid), vaddr, entry, flags)


def _update_va_mapping(caller: Caller, owner: Domain, vaddr: int, entry: int, flags: int) -> int:
    tables = caller.dom.page_tables
    state = caller.current.state
    if not caller.mem.is_guest_range(vaddr & ~PAGE_MASK, PAGE_SIZE):
        raise XenError(Errno.EINVAL, f"{vaddr:#x} is in Xen's region")
    found = walk(caller.host.memory, tables.mode, state.cr3, vaddr)
    leaf = found.steps[-1]
    if leaf.level != 1 or tables.entry_type(leaf.entry_maddr >> PAGE_SHIFT) is not FrameType.L1:
        raise XenError(Errno.EINVAL, f"{vaddr:#x} has no L1 table")
    if tables.mode.entry_bytes == 4:
        entry &= 0xFFFF_FFFF
    tables.update_entry(leaf.entry_maddr, entry, owner=owner.domid)
    flush = flags & UVMF_FLUSHTYPE_MASK
    if flush == UVMF_TLB_FLUSH:
        caller.host.flush_tlb()
    elif flush == UVMF_INVLPG:
        caller.host.cpu.flush_tlb_page(vaddr)
    return 0


# --- mmuext_op
# ----------------------------------------------------------------------------------------
@hypercall(HypercallNr.MMUEXT_OP, args=4)
def mmuext_op(caller: Caller, vaddr: int, count: int, done_vaddr: int, domid: int) -> int:
    """Do `count` operations at `vaddr`; how many were done goes to `done_vaddr`."""
    target = _foreign(caller, domid)
    count &= ~MMU_UPDATE_PREEMPTED & 0xFFFF_FFFF
    shape = layout(MmuextOp, caller.width)
    done = 0
    try:
        for idx in range(count):
            op = shape.unpack_from(caller.mem.read(vaddr + idx * shape.size, shape.size))
            row = MMUEXT_OPS.get(op.cmd)
            if row is None:
                raise XenError(Errno.ENOSYS, f"mmuext_op command {op.cmd} is unknown")
            if isinstance(row, Absent):
                raise XenError(row.errno, row.reason)
            if target is not caller.dom and op.cmd > MmuextCmd.UNPIN_TABLE:
                raise XenError(Errno.EPERM, "only pins may be another domain's")
            row.handler(caller, op)
            done += 1
    finally:
        if done_vaddr:
            caller.mem.write(done_vaddr, done.to_bytes(4, "little"))
    return 0


def _pin(want: FrameType) -> Callable[[Caller, MmuextOp], None]:
    def pin(caller: Caller, op: MmuextOp) -> None:
        tables = caller.dom.page_tables
        if want > tables.root_type:
            raise XenError(Errno.EINVAL, f"{caller.width.value} has no {want.name} tables")
        tables.pin(op.arg1, want)

    return pin


def unpin_table(caller: Caller, op: MmuextOp) -> None:
    """Let a table go that was pinned."""
    caller.dom.page_tables.unpin(op.arg1)


def new_baseptr(caller: Caller, op: MmuextOp) -> None:
    """Run on another top-level table from now on."""
    set_baseptr(caller, op.arg1)


def set_baseptr(caller: Caller, mfn: int) -> None:
    """Let the kernel of the calling vCPU run on `mfn`, validated as a root."""
    vcpu = caller.vcpu
    tables = caller.dom.page_tables
    if mfn != vcpu.root_mfn:
        tables.get_page_and_type(mfn, tables.root_type)
        old, vcpu.root_mfn = vcpu.root_mfn, mfn
        tables.put_page_and_type(old)
    caller.current.state.cr3 = mfn << PAGE_SHIFT
    caller.host.flush_tlb()


def new_user_baseptr(caller: Caller, op: MmuextOp) -> None:
    """Which table user mode runs on (64-bit guests only)."""
    if not caller.width.is_64:
        raise XenError(Errno.EOPNOTSUPP, "a 32-bit guest has one table for kernel and user")
    vcpu = caller.vcpu
    tables = caller.dom.page_tables
    if op.arg1 and op.arg1 != vcpu.user_root_mfn:
        tables.get_page_and_type(op.arg1, tables.root_type)
    elif op.arg1 == vcpu.user_root_mfn:
        return
    old, vcpu.user_root_mfn = vcpu.user_root_mfn, op.arg1
    if old:
        tables.put_page_and_type(old)
    caller.host.flush_tlb()


def tlb_flush(caller: Caller, op: MmuextOp) -> None:
    """Flush the whole TLB. There is one CPU, so local, all and multi are the same."""
    caller.host.flush_tlb()


def invlpg(caller: Caller, op: MmuextOp) -> None:
    """Flush one page."""
    if caller.mem.is_guest_range(op.arg1 & ~PAGE_MASK, PAGE_SIZE):
        caller.host.cpu.flush_tlb_page(op.arg1)


def set_ldt(caller: Caller, op: MmuextOp) -> None:
    """Use the descriptors at a linear address as the LDT; its pages are mapped when first used."""
    vaddr, entries = op.arg1, op.arg2
    if entries > MAX_LDT_ENTRIES or vaddr & PAGE_MASK:
        raise XenError(Errno.EINVAL, f"LDT at {vaddr:#x} with {entries} entries")
    if not caller.mem.is_guest_range(vaddr, entries * 8):
        raise XenError(Errno.EINVAL, f"LDT at {vaddr:#x} lies in Xen's region")
    caller.host.descriptor_tables.set_ldt(caller.current, vaddr, entries)


def clear_page(caller: Caller, op: MmuextOp) -> None:
    """Fill a frame of the caller with zeroes."""
    _write_frame(caller, op.arg1, bytes(PAGE_SIZE))


def copy_page(caller: Caller, op: MmuextOp) -> None:
    """Copy one frame of the caller to another."""
    frames = caller.host.frames
    frames.get_page(op.arg2, caller.dom.domid)
    try:
        _write_frame(caller, op.arg1, bytes(caller.host.memory.frame(op.arg2)))
    finally:
        frames.put_page(op.arg2)


def _write_frame(caller: Caller, mfn: int, data: bytes) -> None:
    tables = caller.dom.page_tables
    tables.get_page_and_type(mfn, FrameType.WRITABLE)
    caller.host.memory.frame(mfn)[:] = data
    caller.host.cpu.code_written(mfn << PAGE_SHIFT, PAGE_SIZE)
    tables.put_page_and_type(mfn)


_NO_CACHES: Final = Absent(Errno.EACCES, "only domains with hardware may flush caches")
_NO_SUPER: Final = Absent(Errno.EOPNOTSUPP, "PV guests map no superpages")

MMUEXT_OPS: Final[dict[int, Row]] = {
    MmuextCmd.PIN_L1_TABLE: SubOp(MmuextOp, _pin(FrameType.L1)),
    MmuextCmd.PIN_L2_TABLE: SubOp(MmuextOp, _pin(FrameType.L2)),
    MmuextCmd.PIN_L3_TABLE: SubOp(MmuextOp, _pin(FrameType.L3)),
    MmuextCmd.PIN_L4_TABLE: SubOp(MmuextOp, _pin(FrameType.L4)),
    MmuextCmd.UNPIN_TABLE: SubOp(MmuextOp, unpin_table),
    MmuextCmd.NEW_BASEPTR: SubOp(MmuextOp, new_baseptr),
    MmuextCmd.TLB_FLUSH_LOCAL: SubOp(MmuextOp, tlb_flush),
    MmuextCmd.INVLPG_LOCAL: SubOp(MmuextOp, invlpg),
    MmuextCmd.TLB_FLUSH_MULTI: SubOp(MmuextOp, tlb_flush),
    MmuextCmd.INVLPG_MULTI: SubOp(MmuextOp, invlpg),
    MmuextCmd.TLB_FLUSH_ALL: SubOp(MmuextOp, tlb_flush),
    MmuextCmd.INVLPG_ALL: SubOp(MmuextOp, invlpg),
    MmuextCmd.FLUSH_CACHE: _NO_CACHES,
    MmuextCmd.SET_LDT: SubOp(MmuextOp, set_ldt),
    MmuextCmd.NEW_USER_BASEPTR: SubOp(MmuextOp, new_user_baseptr),
    MmuextCmd.CLEAR_PAGE: SubOp(MmuextOp, clear_page),
    MmuextCmd.COPY_PAGE: SubOp(MmuextOp, copy_page),
    MmuextCmd.FLUSH_CACHE_GLOBAL: _NO_CACHES,
    MmuextCmd.MARK_SUPER: _NO_SUPER,
    MmuextCmd.UNMARK_SUPER: _NO_SUPER,
}
subops(HypercallNr.MMUEXT_OP, MMUEXT_OPS)

__all__ = ["MMUEXT_OPS", "mmu_update", "mmuext_op", "set_baseptr"]
