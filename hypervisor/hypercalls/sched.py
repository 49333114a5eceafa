"""sched_op and set_timer_op: giving the CPU away, and ending (Xen's common/sched/core.c)."""

from __future__ import annotations

from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.sched import SchedOp, SchedPoll, SchedRemoteShutdown, SchedShutdown
from hypervisor.abi.xen import HypercallNr
from hypervisor.domain.domain import VcpuState
from hypervisor.events.timers import TimerKey, TimerKind
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Absent, SubOp, call_subop, hypercall, subops

MAX_POLL_PORTS: Final = 128
_FAR_FUTURE_NS: Final = 1 << 62


def yield_(caller: Caller) -> None:
    """Let others run first."""
    caller.host.yield_cpu(caller.vcpu)


def block(caller: Caller) -> None:
    """Unmask events and wait for one; return at once if one is pending."""
    caller.current.mask_events(False)
    if not caller.current.upcall_due:
        caller.host.block(caller.vcpu, VcpuState.BLOCKED)


def shutdown(caller: Caller, arg: SchedShutdown) -> None:
    """The domain is over."""
    caller.host.shutdown(caller.dom, arg.reason)


def poll(caller: Caller, arg: SchedPoll) -> None:
    """Wait until one of some ports is pending, or a time has come; events stay masked or not."""
    if arg.nr_ports > MAX_POLL_PORTS:
        raise XenError(Errno.EINVAL, f"{arg.nr_ports} ports to poll, at most {MAX_POLL_PORTS}")
    raw = caller.mem.read(arg.ports, 4 * arg.nr_ports) if arg.nr_ports else b""
    ports = tuple(int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4))
    events = caller.host.events
    for port in ports:
        events.channel(caller.dom, port)
    if any(events.is_pending(caller.dom, port) for port in ports):
        return
    vcpu = caller.vcpu
    if arg.timeout:
        if arg.timeout <= caller.host.now_ns:
            return
        key = TimerKey(vcpu.domid, vcpu.vcpu_id, TimerKind.POLL)
        caller.host.timers.set(key, arg.timeout)
    if ports or arg.timeout:
        vcpu.poll_ports = ports or (0,)
        caller.host.block(vcpu, VcpuState.POLLING)


def remote_shutdown(caller: Caller, arg: SchedRemoteShutdown) -> None:
    """End another domain."""
    caller.host.shutdown(caller.resolve(arg.domain_id), arg.reason)


def shutdown_code(caller: Caller, arg: SchedShutdown) -> None:
    """Announce the reason of a shutdown that is to come."""
    caller.dom.announced_reason = arg.reason


SCHED_OPS: Final = subops(
    HypercallNr.SCHED_OP,
    {
        SchedOp.YIELD: SubOp(None, yield_),
        SchedOp.BLOCK: SubOp(None, block),
        SchedOp.SHUTDOWN: SubOp(SchedShutdown, shutdown),
        SchedOp.POLL: SubOp(SchedPoll, poll),
        SchedOp.REMOTE_SHUTDOWN: SubOp(SchedRemoteShutdown, remote_shutdown),
        SchedOp.SHUTDOWN_CODE: SubOp(SchedShutdown, shutdown_code),
        SchedOp.WATCHDOG: Absent(Errno.ENOSYS, "no watchdog timers yet"),
        SchedOp.PIN_OVERRIDE: Absent(Errno.EPERM, "for the hardware domain only"),
    },
)


@hypercall(HypercallNr.SCHED_OP, args=2)
def sched_op(caller: Caller, operation: int, vaddr: int) -> int:
    """Do one scheduling operation."""
    return call_subop(caller, SCHED_OPS, operation, vaddr)


@hypercall(HypercallNr.SCHED_OP_COMPAT, args=2)
def sched_op_compat(caller: Caller, operation: int, argument: int) -> int:
    """The first form of sched_op: yield and block as now, shutdown's reason in a register."""
    match operation:
        case SchedOp.YIELD:
            yield_(caller)
        case SchedOp.BLOCK:
            block(caller)
        case SchedOp.SHUTDOWN:
            caller.host.shutdown(caller.dom, argument & 0xFF)
        case _:
            raise XenError(Errno.ENOSYS, f"sched_op_compat operation {operation} is unknown")
    return 0


@hypercall(HypercallNr.SET_TIMER_OP, args=2)
def set_timer_op(caller: Caller, low: int, high: int) -> int:
    """VIRQ_TIMER at an absolute system time; 0 cancels it. 32-bit callers pass two halves."""
    deadline_ns = low if caller.width.is_64 else low | high << 32
    vcpu = caller.vcpu
    key = TimerKey(vcpu.domid, vcpu.vcpu_id, TimerKind.SET_TIMER_OP)
    if deadline_ns == 0:
        caller.host.timers.cancel(key)
    elif deadline_ns < _FAR_FUTURE_NS:
        caller.host.set_timer(key, deadline_ns)
    return 0
