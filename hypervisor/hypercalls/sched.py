"""sched_op and set_timer_op: giving the CPU away, and ending (Xen's common/sched/core.c)."""

from __future__ import annotations

from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.sched import (
    SchedOp,
    SchedPoll,
    SchedRemoteShutdown,
    SchedShutdown,
    SchedWatchdog,
)
from hypervisor.abi.xen import HypercallNr
from hypervisor.domain.domain import Domain, VcpuState
from hypervisor.events.timers import TimerKey, TimerKind
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Absent, SubOp, call_subop, hypercall, subops

MAX_POLL_PORTS: Final = 128
NR_DOMAIN_WATCHDOG_TIMERS: Final = 2
_PORT_BYTES: Final = 4
_SECOND_NS: Final = 1_000_000_000
_REASON_MASK: Final = 0xFF  # a reason is a u8 to Xen
_WRAPPED_NS: Final = 1 << 50
_WRAPPED_DELAY_NS: Final = 100_000_000


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
    caller.host.shutdown(caller.dom, arg.reason & _REASON_MASK)


def poll(caller: Caller, arg: SchedPoll) -> None:
    """Wait until one of some ports is pending, or a time has come; events stay masked or not.

    With one port its event ends the wait, with none or several that of any port does: Xen keeps
    just one number, and the guest looks again. So does an upcall, which may be masked (do_poll).
    """
    if arg.nr_ports > MAX_POLL_PORTS:
        raise XenError(Errno.EINVAL, f"{arg.nr_ports} ports to poll, at most {MAX_POLL_PORTS}")
    if not caller.mem.is_guest_range(arg.ports, arg.nr_ports * _PORT_BYTES):
        raise XenError(Errno.EFAULT, f"ports at {arg.ports:#x} are in Xen's region")
    if caller.current.upcall_due:
        return
    events = caller.host.events
    port = 0
    for idx in range(arg.nr_ports):
        raw = caller.mem.read(arg.ports + idx * _PORT_BYTES, _PORT_BYTES)
        port = int.from_bytes(raw, "little")
        if events.is_pending(caller.dom, port):
            return
    vcpu = caller.vcpu
    vcpu.poll_ports = (port,) if arg.nr_ports == 1 else ()
    caller.host.block(vcpu, VcpuState.POLLING)
    if arg.timeout:
        key = TimerKey(vcpu.domid, vcpu.vcpu_id, TimerKind.POLL)
        caller.host.set_timer(key, _system_time(arg.timeout))


def remote_shutdown(caller: Caller, arg: SchedRemoteShutdown) -> None:
    """End a domain, which DOMID_SELF does not name here, by a privileged one."""
    dom = caller.host.domains.get(arg.domain_id)
    if dom is None:
        raise XenError(Errno.ESRCH, f"there is no domain {arg.domain_id:#x}")
    _require_privilege(caller, dom)
    caller.host.shutdown(dom, arg.reason & _REASON_MASK)


def _require_privilege(caller: Caller, dom: Domain) -> None:
    if not caller.dom.privileged:
        raise XenError(Errno.EPERM, f"d{caller.dom.domid} may not end d{dom.domid}")


def shutdown_code(caller: Caller, arg: SchedShutdown) -> None:
    """Announce the reason of a shutdown that is to come; the first one stays."""
    if caller.dom.announced_reason is None:
        caller.dom.announced_reason = arg.reason & _REASON_MASK


def watchdog(caller: Caller, arg: SchedWatchdog) -> int:
    """Let the domain be ended unless it calls again in time; which of its timers (domain_watchdog).

    Only a new one can be set to no time at all, and then ends the domain at once.
    """
    dom = caller.dom
    if arg.id == 0:
        free = (idx for idx in range(NR_DOMAIN_WATCHDOG_TIMERS) if not dom.watchdogs >> idx & 1)
        if (idx := next(free, None)) is None:
            raise XenError(Errno.ENOSPC, f"d{dom.domid} uses its two watchdogs already")
        dom.watchdogs |= 1 << idx
        _set_watchdog(caller, idx, arg.timeout)
        return idx + 1
    idx = arg.id - 1
    if idx >= NR_DOMAIN_WATCHDOG_TIMERS or not dom.watchdogs >> idx & 1:
        raise XenError(Errno.EINVAL, f"d{dom.domid} uses no watchdog {arg.id}")
    if arg.timeout:
        _set_watchdog(caller, idx, arg.timeout)
    else:
        dom.watchdogs &= ~(1 << idx)
        caller.host.timers.cancel(TimerKey(dom.domid, idx, TimerKind.WATCHDOG))
    return 0


def _set_watchdog(caller: Caller, idx: int, timeout_s: int) -> None:
    key = TimerKey(caller.dom.domid, idx, TimerKind.WATCHDOG)
    caller.host.set_timer(key, caller.host.now_ns + timeout_s * _SECOND_NS)


SCHED_OPS: Final = subops(
    HypercallNr.SCHED_OP,
    {
        SchedOp.YIELD: SubOp(None, yield_),
        SchedOp.BLOCK: SubOp(None, block),
        SchedOp.SHUTDOWN: SubOp(SchedShutdown, shutdown),
        SchedOp.POLL: SubOp(SchedPoll, poll),
        SchedOp.REMOTE_SHUTDOWN: SubOp(SchedRemoteShutdown, remote_shutdown),
        SchedOp.SHUTDOWN_CODE: SubOp(SchedShutdown, shutdown_code),
        SchedOp.WATCHDOG: SubOp(SchedWatchdog, watchdog),
        SchedOp.PIN_OVERRIDE: Absent(Errno.EPERM, "for the hardware domain only"),
    },
)


@hypercall(HypercallNr.SCHED_OP, args=2, operations=SCHED_OPS)
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
            caller.host.shutdown(caller.dom, argument & _REASON_MASK)
        case _:
            raise XenError(Errno.ENOSYS, f"sched_op_compat operation {operation} is unknown")
    return 0


@hypercall(HypercallNr.SET_TIMER_OP, args=2)
def set_timer_op(caller: Caller, low: int, high: int) -> int:
    """VIRQ_TIMER at an absolute system time; 0 cancels it. 32-bit callers pass two halves.

    A time 13 days or more ahead, or negative, is the work of an old Linux whose jiffies wrapped:
    Xen lets it have an event after 100 ms.
    """
    deadline_ns = low if caller.width.is_64 else low | high << 32
    vcpu = caller.vcpu
    key = TimerKey(vcpu.domid, vcpu.vcpu_id, TimerKind.SINGLESHOT)
    if deadline_ns == 0:
        caller.host.timers.cancel(key)
        return 0
    now = caller.host.now_ns
    if deadline_ns >= 1 << 63 or deadline_ns - now >= _WRAPPED_NS:
        deadline_ns = now + _WRAPPED_DELAY_NS
    caller.host.set_timer(key, deadline_ns)
    return 0


def _system_time(value: int) -> int:
    """A u64 as Xen's signed time: negative ones have passed."""
    return 0 if value >= 1 << 63 else value
