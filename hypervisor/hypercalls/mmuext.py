"""mmuext_op: pins, base pointers, flushes, the LDT, and whole frames cleared or copied.

As do_mmuext_op in Xen's arch/x86/mm.c: an operation of the wrong paging level is done by doing
nothing, and only what concerns frames, not the running vCPU, may be another domain's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.types import DOMID_IO, DOMID_XEN
from hypervisor.abi.xen import HypercallNr, MmuextCmd, MmuextOp
from hypervisor.domain.domain import Domain
from hypervisor.hypercalls import mmu_batch
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.mmu import frame_owner
from hypervisor.hypercalls.table import Absent, Row, SubOp, hypercall, subops
from hypervisor.mm.descriptors import MAX_LDT_ENTRIES
from hypervisor.mm.frames import FrameType
from hypervisor.mm.pagetables import UNLIMITED, OutOfBudget
from hypervisor.x86.paging import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

_M16: Final = 0xFFFF
_M32: Final = 0xFFFF_FFFF


@hypercall(HypercallNr.MMUEXT_OP, args=4)
def mmuext_op(caller: Caller, vaddr: int, count: int, done_vaddr: int, foreign: int) -> int:
    """Do `count` operations at `vaddr`; how many were done goes to `done_vaddr`."""
    batch = mmu_batch.Batch(vaddr, count & _M32, done_vaddr, foreign & _M32)
    shape = layout(MmuextOp, caller.width)
    target: Domain | None = caller.dom

    def prepare() -> None:
        nonlocal target
        target = _target(caller, batch.foreign & _M16)

    def operate(raw: bytes) -> None:
        _one_operation(caller, target, shape.unpack_from(raw))

    return mmu_batch.run(caller, batch, shape.size, prepare, operate)


def _target(caller: Caller, domid: int) -> Domain | None:
    """Whose frames are meant; None for the owners of devices and of Xen's memory, who have none
    that an operation could be about. Raises XenError(ESRCH, EPERM).
    """
    if domid in (DOMID_IO, DOMID_XEN):
        if not caller.dom.privileged:
            raise XenError(Errno.EPERM, f"domain {domid:#x} is not for d{caller.dom.domid}")
        return None
    return caller.host.domains[frame_owner(caller, domid)]


def _one_operation(caller: Caller, target: Domain | None, op: MmuextOp) -> None:
    row = MMUEXT_OPS.get(op.cmd)
    if row is None:
        raise XenError(Errno.ENOSYS, f"mmuext_op command {op.cmd} is unknown")
    if target is not caller.dom and op.cmd not in _FOR_ANY_DOMAIN:
        raise XenError(Errno.EPERM, f"{MmuextCmd(op.cmd).name} on behalf of another domain")
    if isinstance(row, Absent):
        raise XenError(row.errno, row.reason)
    if target is None:
        raise XenError(Errno.EINVAL, f"mfn {op.arg1:#x} is no frame of Xen's to act on")
    row.handler(caller, target, op)


# --- pins
# --------------------------------------------------------------------------------------------
def _pin(want: FrameType) -> Callable[[Caller, Domain, MmuextOp], None]:
    def pin(caller: Caller, target: Domain, op: MmuextOp) -> None:
        tables = target.page_tables
        if want <= tables.root_type:
            tables.pin(op.arg1, want)

    return pin


def unpin_table(caller: Caller, target: Domain, op: MmuextOp) -> None:
    """Let a table go that was pinned."""
    target.page_tables.unpin(op.arg1)


# --- base pointers
# -----------------------------------------------------------------------------------
def new_baseptr(caller: Caller, target: Domain, op: MmuextOp) -> None:
    """Run on another top-level table from now on."""
    set_baseptr(caller, op.arg1)


def set_baseptr(caller: Caller, mfn: int) -> None:
    """Let the kernel of the calling vCPU run on `mfn`, validated as a root.

    The LDT's pages are looked up anew, in the new tables (new_guest_cr3 in Xen).
    """
    vcpu = caller.vcpu
    tables = caller.dom.page_tables
    if mfn != vcpu.root_mfn:
        tables.get_page_and_type(mfn, tables.root_type)
        if vcpu.ldt_entries:
            caller.host.descriptor_tables.drop_ldt(caller.dom, vcpu)
        old, vcpu.root_mfn = vcpu.root_mfn, mfn
        caller.current.state.cr3 = mfn << PAGE_SHIFT
        caller.host.tlb.all()
        tables.put_page_and_type(old)
        return
    caller.current.state.cr3 = mfn << PAGE_SHIFT
    caller.host.tlb.all()


def move_to_cr3(caller: Caller, mfn: int) -> bool:
    """The same by a `mov` to CR3; False when there is work left and it is to be executed again."""
    tables = caller.dom.page_tables
    tables.budget = mmu_batch.ENTRIES_PER_PIECE
    try:
        if tables.reap():
            tables.retryable(caller.vcpu.vcpu_id, set_baseptr, caller, mfn)
            return True
    except OutOfBudget:
        pass
    finally:
        tables.budget = UNLIMITED
    caller.host.preempt(caller.vcpu)
    return False


def new_user_baseptr(caller: Caller, target: Domain, op: MmuextOp) -> None:
    """Which table user mode runs on (64-bit guests only)."""
    vcpu = caller.vcpu
    tables = caller.dom.page_tables
    if op.arg1 == vcpu.user_root_mfn:
        return
    if not caller.width.is_64:
        raise XenError(Errno.EINVAL, "a 32-bit guest has one table for kernel and user")
    if op.arg1:
        tables.get_page_and_type(op.arg1, tables.root_type)
    old, vcpu.user_root_mfn = vcpu.user_root_mfn, op.arg1
    if old:
        tables.put_page_and_type(old)
    caller.host.tlb.user()


# --- flushes
# -----------------------------------------------------------------------------------------
def tlb_flush(caller: Caller, target: Domain, op: MmuextOp) -> None:
    """Flush the whole TLB. There is one CPU, so local and all are the same."""
    caller.host.tlb.all()


def tlb_flush_multi(caller: Caller, target: Domain, op: MmuextOp) -> None:
    """The same for a set of vCPUs."""
    _check_vcpumask(caller, op.arg2)
    caller.host.tlb.all()


def invlpg(caller: Caller, target: Domain, op: MmuextOp) -> None:
    """Flush one page; one of Xen's is passed over."""
    if caller.mem.is_guest_range(op.arg1 & ~PAGE_MASK, PAGE_SIZE):
        caller.host.tlb.page(op.arg1)


def invlpg_multi(caller: Caller, target: Domain, op: MmuextOp) -> None:
    """The same for a set of vCPUs."""
    _check_vcpumask(caller, op.arg2)
    invlpg(caller, target, op)


def _check_vcpumask(caller: Caller, vaddr: int) -> None:
    """The set must be there, though it changes nothing: -EINVAL, where others say -EFAULT."""
    try:
        caller.mem.read(vaddr, caller.width.word_bytes)
    except XenError as fault:
        raise XenError(Errno.EINVAL, fault.why) from None


# --- the LDT, whole frames
# ----------------------------------------------------------------------------
def set_ldt(caller: Caller, target: Domain, op: MmuextOp) -> None:
    """Use the descriptors at a linear address as the LDT; its pages are mapped when first used."""
    entries = op.arg2 & _M32
    vaddr = op.arg1 if entries else 0
    if entries > MAX_LDT_ENTRIES or vaddr & PAGE_MASK:
        raise XenError(Errno.EINVAL, f"LDT at {vaddr:#x} with {entries} entries")
    if not caller.mem.is_guest_range(vaddr, entries * 8):
        raise XenError(Errno.EINVAL, f"LDT at {vaddr:#x} lies in Xen's region")
    caller.host.descriptor_tables.set_ldt(caller.current, vaddr, entries)


def clear_page(caller: Caller, target: Domain, op: MmuextOp) -> None:
    """Fill a frame with zeroes."""
    _write_frame(caller, target, op.arg1, bytes(PAGE_SIZE))


def copy_page(caller: Caller, target: Domain, op: MmuextOp) -> None:
    """Copy one frame to another of the same domain."""
    frames = caller.host.frames
    frames.get_page(op.arg2, target.domid)
    try:
        _write_frame(caller, target, op.arg1, bytes(caller.host.memory.frame(op.arg2)))
    finally:
        frames.put_page(op.arg2)


def _write_frame(caller: Caller, target: Domain, mfn: int, data: bytes) -> None:
    tables = target.page_tables
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
    MmuextCmd.TLB_FLUSH_MULTI: SubOp(MmuextOp, tlb_flush_multi),
    MmuextCmd.INVLPG_MULTI: SubOp(MmuextOp, invlpg_multi),
    MmuextCmd.TLB_FLUSH_ALL: SubOp(MmuextOp, tlb_flush),
    MmuextCmd.INVLPG_ALL: SubOp(MmuextOp, invlpg),
    MmuextCmd.FLUSH_CACHE: _NO_CACHES,
    MmuextCmd.SET_LDT: SubOp(MmuextOp, set_ldt),
    MmuextCmd.NEW_USER_BASEPTR: SubOp(MmuextOp, new_user_baseptr),
    MmuextCmd.CLEAR_PAGE: SubOp(MmuextOp, clear_page),
    MmuextCmd.COPY_PAGE: SubOp(MmuextOp, copy_page),
    MmuextCmd.FLUSH_CACHE_GLOBAL: Absent(Errno.EINVAL, _NO_CACHES.reason),
    MmuextCmd.MARK_SUPER: _NO_SUPER,
    MmuextCmd.UNMARK_SUPER: _NO_SUPER,
}
subops(HypercallNr.MMUEXT_OP, MMUEXT_OPS)

_FOR_ANY_DOMAIN: Final = frozenset(
    {
        MmuextCmd.PIN_L1_TABLE,
        MmuextCmd.PIN_L2_TABLE,
        MmuextCmd.PIN_L3_TABLE,
        MmuextCmd.PIN_L4_TABLE,
        MmuextCmd.UNPIN_TABLE,
        MmuextCmd.CLEAR_PAGE,
        MmuextCmd.COPY_PAGE,
        MmuextCmd.MARK_SUPER,
        MmuextCmd.UNMARK_SUPER,
    }
)
