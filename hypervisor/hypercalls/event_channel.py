"""event_channel_op: binding, sending and closing ports (Xen's common/event_channel.c)."""

from __future__ import annotations

from typing import Final

from hypervisor.abi import event_channel as abi
from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.event_channel import EvtchnOp, EvtchnStat
from hypervisor.abi.types import DOMID_SELF
from hypervisor.abi.xen import HypercallNr
from hypervisor.events.ports import PortState
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Absent, Preempted, SubOp, call_subop, hypercall, subops


def bind_interdomain(caller: Caller, arg: abi.EvtchnBindInterdomain) -> None:
    """Connect to an unbound port of another domain, or of the caller for a loopback."""
    remote = caller.find(arg.remote_dom)
    arg.local_port = caller.host.events.bind_interdomain(caller.dom, remote, arg.remote_port)


def bind_virq(caller: Caller, arg: abi.EvtchnBindVirq) -> None:
    """A port for a virtual interrupt."""
    arg.port = caller.host.events.bind_virq(caller.dom, arg.virq, arg.vcpu)


def bind_ipi(caller: Caller, arg: abi.EvtchnBindIpi) -> None:
    """A port that interrupts one of the caller's own vCPUs."""
    arg.port = caller.host.events.bind_ipi(caller.dom, arg.vcpu)


def close(caller: Caller, arg: abi.EvtchnClose) -> None:
    """Free a port."""
    caller.host.events.close(caller.dom, arg.port)


def send(caller: Caller, arg: abi.EvtchnSend) -> None:
    """Notify the other end."""
    caller.host.events.send(caller.dom, arg.port)


_STATUS: Final = {
    PortState.FREE: EvtchnStat.CLOSED,
    PortState.RESERVED: EvtchnStat.CLOSED,
    PortState.UNBOUND: EvtchnStat.UNBOUND,
    PortState.INTERDOMAIN: EvtchnStat.INTERDOMAIN,
    PortState.PIRQ: EvtchnStat.PIRQ,
    PortState.VIRQ: EvtchnStat.VIRQ,
    PortState.IPI: EvtchnStat.IPI,
}


def status(caller: Caller, arg: abi.EvtchnStatus) -> None:
    """What a port is bound to; fields that do not belong to its kind stay as they were."""
    dom = caller.find(arg.dom)
    channel = caller.host.events.channel(dom, arg.port)
    caller.require_target(dom)
    arg.status = _STATUS[channel.state]
    arg.vcpu = channel.vcpu_id
    match channel.state:
        case PortState.UNBOUND:
            arg.u = channel.remote_domid
        case PortState.INTERDOMAIN:
            arg.u, arg.u_port = channel.remote_domid, channel.remote_port
        case PortState.VIRQ:
            arg.u = channel.virq
        case _:
            pass


def alloc_unbound(caller: Caller, arg: abi.EvtchnAllocUnbound) -> None:
    """A port that another domain may bind."""
    dom = caller.find(arg.dom)
    caller.host.events.get_free_port(dom)  # ENOSPC is found out before EPERM
    caller.require_target(dom)
    remote = caller.dom.domid if arg.remote_dom == DOMID_SELF else arg.remote_dom
    arg.port = caller.host.events.alloc_unbound(dom, remote)


def bind_vcpu(caller: Caller, arg: abi.EvtchnBindVcpu) -> None:
    """Notify another vCPU by this port."""
    caller.host.events.bind_vcpu(caller.dom, arg.port, arg.vcpu)


def unmask(caller: Caller, arg: abi.EvtchnUnmask) -> None:
    """Clear a port's mask bit, raising what was waiting."""
    caller.host.events.unmask(caller.dom, arg.port)


class _ResetGoesOn(Exception):
    """A reset has ports left to close."""


def reset(caller: Caller, arg: abi.EvtchnReset) -> None:
    """Close all ports of a domain, of another one only while it is paused."""
    _reset(caller, arg, resuming=False)


def reset_cont(caller: Caller, arg: abi.EvtchnReset) -> None:
    """The same, going on where it was left: what a long reset turns itself into."""
    _reset(caller, arg, resuming=True)


def _reset(caller: Caller, arg: abi.EvtchnReset, *, resuming: bool) -> None:
    dom = caller.find(arg.dom)
    caller.require_target(dom)
    if dom is not caller.dom and not dom.paused:
        raise XenError(Errno.EINVAL, f"d{dom.domid} is running; pause it to reset its ports")
    if not caller.host.events.reset(dom, resuming=resuming):
        raise _ResetGoesOn


# --- the FIFO ABI --------------------------------------------------------------------------------
def init_control(caller: Caller, arg: abi.EvtchnInitControl) -> None:
    """Where a vCPU's control block lies; the first one switches the domain to FIFO."""
    arg.link_bits = abi.EVTCHN_FIFO_LINK_BITS
    caller.host.events.init_control(caller.dom, arg.vcpu, arg.control_gfn, arg.offset)


def expand_array(caller: Caller, arg: abi.EvtchnExpandArray) -> None:
    """One more frame of event words."""
    caller.host.events.expand_array(caller.dom, arg.array_gfn)


def set_priority(caller: Caller, arg: abi.EvtchnSetPriority) -> None:
    """The queue of a port's future events."""
    caller.host.events.set_priority(caller.dom, arg.port, arg.priority)


EVTCHN_OPS: Final = subops(
    HypercallNr.EVENT_CHANNEL_OP,
    {
        EvtchnOp.BIND_INTERDOMAIN: SubOp(
            abi.EvtchnBindInterdomain, bind_interdomain, copy_back=True
        ),
        EvtchnOp.BIND_VIRQ: SubOp(abi.EvtchnBindVirq, bind_virq, copy_back=True),
        EvtchnOp.BIND_PIRQ: Absent(Errno.EPERM, "no domain here has physical interrupts"),
        EvtchnOp.CLOSE: SubOp(abi.EvtchnClose, close),
        EvtchnOp.SEND: SubOp(abi.EvtchnSend, send),
        EvtchnOp.STATUS: SubOp(abi.EvtchnStatus, status, copy_back=True),
        EvtchnOp.ALLOC_UNBOUND: SubOp(abi.EvtchnAllocUnbound, alloc_unbound, copy_back=True),
        EvtchnOp.BIND_IPI: SubOp(abi.EvtchnBindIpi, bind_ipi, copy_back=True),
        EvtchnOp.BIND_VCPU: SubOp(abi.EvtchnBindVcpu, bind_vcpu),
        EvtchnOp.UNMASK: SubOp(abi.EvtchnUnmask, unmask),
        EvtchnOp.RESET: SubOp(abi.EvtchnReset, reset),
        EvtchnOp.INIT_CONTROL: SubOp(abi.EvtchnInitControl, init_control, copy_back=True),
        EvtchnOp.EXPAND_ARRAY: SubOp(abi.EvtchnExpandArray, expand_array),
        EvtchnOp.SET_PRIORITY: SubOp(abi.EvtchnSetPriority, set_priority),
        EvtchnOp.RESET_CONT: SubOp(abi.EvtchnReset, reset_cont),
    },
)


@hypercall(HypercallNr.EVENT_CHANNEL_OP, args=2, operations=EVTCHN_OPS)
def event_channel_op(caller: Caller, operation: int, vaddr: int) -> int:
    """Do one operation on the caller's ports."""
    try:
        return call_subop(caller, EVTCHN_OPS, operation, vaddr)
    except _ResetGoesOn:
        raise Preempted(EvtchnOp.RESET_CONT, vaddr) from None
