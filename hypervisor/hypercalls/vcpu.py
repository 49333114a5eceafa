"""vcpu_op: virtual CPUs, their timers and their areas (Xen's common/domain.c, do_vcpu_op)."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from hypervisor.abi.arch_x86 import Vgcf
from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.sched import ShutdownReason
from hypervisor.abi.vcpu import (
    VcpuOp,
    VcpuRegisterRunstateMemoryArea,
    VcpuRegisterTimeMemoryArea,
    VcpuRegisterVcpuInfo,
    VcpuRunstateInfo,
    VcpuSetPeriodicTimer,
    VcpuSetSingleshotTimer,
)
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr
from hypervisor.control.vcpu_context import CONTEXT, checked_context, hold_roots
from hypervisor.control.vcpu_context import initialise as initialise_vcpu
from hypervisor.domain.domain import PENDING_SEL_OFFSET, VCPU_INFO_BYTES, Vcpu, VcpuState
from hypervisor.events.runstate import packed, runstate_info, runstate_info_now
from hypervisor.events.timers import TimerKey, TimerKind
from hypervisor.hypercalls import mmu_batch
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Absent, Preempted, Row, SubOp, hypercall, subops
from hypervisor.mm.frames import FrameType
from hypervisor.mm.pagetables import UNLIMITED, OutOfBudget
from hypervisor.x86.paging import PAGE_SHIFT, PAGE_SIZE

VCPU_RUNSTATE_BYTES: Final = {width: layout(VcpuRunstateInfo, width).size for width in Width}
VCPU_TIME_BYTES: Final = 32  # struct vcpu_time_info
_MIN_PERIOD_NS: Final = 1_000_000
_MAX_PERIOD_NS: Final = (1 << 62) - 1  # STIME_DELTA_MAX


def initialise(caller: Caller, vcpu: Vcpu, vaddr: int) -> None:
    """Give a vCPU its first registers, tables and entry points; it can be brought up then.

    Validating its top-level tables may take long, and then goes on later.
    """
    shape = layout(CONTEXT[caller.width], caller.width)
    raw = caller.mem.read(vaddr, shape.size)
    if vcpu.is_initialised:
        raise XenError(Errno.EEXIST, f"{vcpu.name} is initialised already")
    context = checked_context(shape.unpack_from(raw), caller.width)
    tables = caller.dom.page_tables
    tables.budget = mmu_batch.ENTRIES_PER_PIECE
    try:
        if not tables.reap():
            raise OutOfBudget
        tables.retryable(caller.vcpu.vcpu_id, hold_roots, caller.dom, context)
    except OutOfBudget:
        raise Preempted(VcpuOp.INITIALISE, vcpu.vcpu_id, vaddr) from None
    finally:
        tables.budget = UNLIMITED
    initialise_vcpu(caller.host, caller.dom, vcpu, context)
    if context.flags & Vgcf.ONLINE:
        caller.host.bring_up(vcpu)


def is_up(caller: Caller, vcpu: Vcpu) -> int:
    """Whether a vCPU runs or could."""
    return int(vcpu.state is not VcpuState.DOWN)


def register_vcpu_info(caller: Caller, vcpu: Vcpu, arg: VcpuRegisterVcpuInfo) -> None:
    """Keep the vCPU's vcpu_info in a frame of the guest; what it held moves there."""
    if arg.offset > PAGE_SIZE - VCPU_INFO_BYTES or arg.offset % caller.width.word_bytes:
        raise XenError(Errno.ENXIO, f"a vcpu_info cannot lie at offset {arg.offset:#x}")
    if vcpu.vcpu_info_registered:
        raise XenError(Errno.EINVAL, f"{vcpu.name} has registered its vcpu_info already")
    if vcpu is not caller.vcpu and vcpu.state is not VcpuState.DOWN:
        raise XenError(Errno.EINVAL, f"{vcpu.name} is running: only it may say where")
    caller.dom.page_tables.get_page_and_type(arg.mfn, FrameType.WRITABLE)
    view = caller.host.memory.view
    at = (arg.mfn << PAGE_SHIFT) + arg.offset
    old = vcpu.vcpu_info_maddr
    view[at : at + VCPU_INFO_BYTES] = view[old : old + VCPU_INFO_BYTES]
    vcpu.vcpu_info_maddr = at
    if vcpu is caller.vcpu:
        caller.current.watch_events()
    vcpu.vcpu_info_registered = True
    # Events may have gone to the old place meanwhile: let the guest look at every port.
    size = caller.width.word_bytes
    view[at] = 1
    selector = at + PENDING_SEL_OFFSET[size]
    view[selector : selector + size] = b"\xff" * size


def set_singleshot_timer(caller: Caller, vcpu: Vcpu, arg: VcpuSetSingleshotTimer) -> None:
    """VIRQ_TIMER once, at an absolute system time; at once if that has passed.

    VCPU_SSHOTTMR_future, by which a caller once could ask to be told, counts for nothing since
    Xen 4.17.
    """
    _require_self(caller, vcpu)
    key = TimerKey(vcpu.domid, vcpu.vcpu_id, TimerKind.SINGLESHOT)
    passed = arg.timeout_abs_ns >= 1 << 63  # a negative time, for Xen
    caller.host.set_timer(key, 0 if passed else arg.timeout_abs_ns)


def stop_singleshot_timer(caller: Caller, vcpu: Vcpu) -> None:
    """No more VIRQ_TIMER from set_singleshot_timer."""
    _require_self(caller, vcpu)
    caller.host.timers.cancel(TimerKey(vcpu.domid, vcpu.vcpu_id, TimerKind.SINGLESHOT))


def set_periodic_timer(caller: Caller, vcpu: Vcpu, arg: VcpuSetPeriodicTimer) -> None:
    """VIRQ_TIMER every `period_ns`, a millisecond at least."""
    if not _MIN_PERIOD_NS <= arg.period_ns <= _MAX_PERIOD_NS:
        raise XenError(Errno.EINVAL, f"a period of {arg.period_ns} ns")
    caller.host.set_period(vcpu, arg.period_ns)


def stop_periodic_timer(caller: Caller, vcpu: Vcpu) -> None:
    """No more VIRQ_TIMER from set_periodic_timer."""
    caller.host.set_period(vcpu, 0)


def up(caller: Caller, vcpu: Vcpu) -> None:
    """Let a vCPU run that was initialised."""
    if not vcpu.is_initialised:
        raise XenError(Errno.EINVAL, f"{vcpu.name} was never initialised")
    if vcpu.state is VcpuState.DOWN:
        caller.host.bring_up(vcpu)


def down(caller: Caller, vcpu: Vcpu) -> None:
    """Take a vCPU off; a domain whose last one goes down powers off."""
    others = (other for other in caller.dom.vcpus if other is not vcpu)
    if all(other.state is VcpuState.DOWN for other in others):
        caller.host.shutdown(caller.dom, ShutdownReason.POWEROFF)
        return
    caller.host.take_down(vcpu)


def send_nmi(caller: Caller, vcpu: Vcpu, vaddr: int) -> None:
    """Let a vCPU enter its NMI handler, or as soon as that is over."""
    if vaddr:
        raise XenError(Errno.EINVAL, f"send_nmi takes no argument, not {vaddr:#x}")
    caller.host.send_nmi(vcpu)


def get_runstate_info(caller: Caller, vcpu: Vcpu, vaddr: int) -> None:
    """How long the vCPU was in each run-state, up to now, to `vaddr`."""
    caller.mem.write(vaddr, packed(runstate_info_now(vcpu, caller.host.now_ns), caller.width))


def register_runstate_memory_area(
    caller: Caller, vcpu: Vcpu, arg: VcpuRegisterRunstateMemoryArea
) -> None:
    """Keep the vCPU's run-state where the guest says; an address that is none later is no error."""
    vcpu.runstate_vaddr = _area(caller, arg.addr, VCPU_RUNSTATE_BYTES[caller.width])
    info = runstate_info(vcpu)
    if vcpu is not caller.vcpu:
        info = runstate_info_now(vcpu, caller.host.now_ns)
    with suppress(XenError):
        caller.mem.write(vcpu.runstate_vaddr, packed(info, caller.width))


def register_time_memory_area(caller: Caller, vcpu: Vcpu, arg: VcpuRegisterTimeMemoryArea) -> None:
    """Keep a copy of the vCPU's vcpu_time_info where the guest says."""
    vcpu.time_vaddr = _area(caller, arg.addr, VCPU_TIME_BYTES)
    if vcpu is caller.vcpu:
        caller.host.force_time(vcpu)


def _area(caller: Caller, addr: int, size: int) -> int:
    """The linear address in an area's argument. Raises XenError(EFAULT) for one of Xen's."""
    vaddr = addr if caller.width.is_64 else addr & 0xFFFF_FFFF
    if not caller.mem.is_guest_handle(vaddr, size):
        raise XenError(Errno.EFAULT, f"an area at {vaddr:#x} would be Xen's")
    return vaddr


def _require_self(caller: Caller, vcpu: Vcpu) -> None:
    if vcpu is not caller.vcpu:
        raise XenError(Errno.EINVAL, f"{caller.vcpu.name} sets the timer of {vcpu.name}")


#: Operations whose handlers take the address of their argument, not what stands there.
_BY_ADDRESS: Final = frozenset({VcpuOp.INITIALISE, VcpuOp.GET_RUNSTATE_INFO, VcpuOp.SEND_NMI})

VCPU_OPS: Final[dict[int, Row]] = {
    VcpuOp.INITIALISE: SubOp(None, initialise),
    VcpuOp.UP: SubOp(None, up),
    VcpuOp.DOWN: SubOp(None, down),
    VcpuOp.IS_UP: SubOp(None, is_up),
    VcpuOp.GET_RUNSTATE_INFO: SubOp(VcpuRunstateInfo, get_runstate_info),
    VcpuOp.REGISTER_RUNSTATE_MEMORY_AREA: SubOp(
        VcpuRegisterRunstateMemoryArea, register_runstate_memory_area
    ),
    VcpuOp.SET_PERIODIC_TIMER: SubOp(VcpuSetPeriodicTimer, set_periodic_timer),
    VcpuOp.STOP_PERIODIC_TIMER: SubOp(None, stop_periodic_timer),
    VcpuOp.SET_SINGLESHOT_TIMER: SubOp(VcpuSetSingleshotTimer, set_singleshot_timer),
    VcpuOp.STOP_SINGLESHOT_TIMER: SubOp(None, stop_singleshot_timer),
    VcpuOp.REGISTER_VCPU_INFO: SubOp(VcpuRegisterVcpuInfo, register_vcpu_info),
    VcpuOp.SEND_NMI: SubOp(None, send_nmi),
    VcpuOp.GET_PHYSID: Absent(Errno.EINVAL, "no vCPU is pinned to a physical CPU"),
    VcpuOp.REGISTER_VCPU_TIME_MEMORY_AREA: SubOp(
        VcpuRegisterTimeMemoryArea, register_time_memory_area
    ),
}
subops(HypercallNr.VCPU_OP, VCPU_OPS)


@hypercall(HypercallNr.VCPU_OP, args=3)
def vcpu_op(caller: Caller, operation: int, vcpu_id: int, vaddr: int) -> int:
    """Do one operation on a vCPU of the caller's domain."""
    vcpu = caller.vcpu_of(vcpu_id)
    row = VCPU_OPS.get(operation)
    if row is None:
        raise XenError(Errno.ENOSYS, f"vcpu_op {operation} is unknown")
    if isinstance(row, Absent):
        raise XenError(row.errno, row.reason)
    if operation in _BY_ADDRESS:
        return row.handler(caller, vcpu, vaddr) or 0
    if row.argument is None:
        return row.handler(caller, vcpu) or 0
    shape = layout(row.argument, caller.width)
    argument = shape.unpack_from(caller.mem.read(vaddr, shape.size))
    return row.handler(caller, vcpu, argument) or 0
