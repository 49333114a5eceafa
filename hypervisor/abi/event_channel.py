"""public/event_channel.h: ports and what can be done with them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hypervisor.abi.layout import U16, U32, abi_struct


class EvtchnOp(IntEnum):
    """EVTCHNOP_*: the first argument of hypercall 32."""

    BIND_INTERDOMAIN = 0
    BIND_VIRQ = 1
    BIND_PIRQ = 2
    CLOSE = 3
    SEND = 4
    STATUS = 5
    ALLOC_UNBOUND = 6
    BIND_IPI = 7
    BIND_VCPU = 8
    UNMASK = 9
    RESET = 10
    INIT_CONTROL = 11
    EXPAND_ARRAY = 12
    SET_PRIORITY = 13


class EvtchnStat(IntEnum):
    """EVTCHNSTAT_*: what a port is bound to."""

    CLOSED = 0
    UNBOUND = 1
    INTERDOMAIN = 2
    PIRQ = 3
    VIRQ = 4
    IPI = 5


@abi_struct(size=12)
@dataclass(slots=True)
class EvtchnBindInterdomain:
    """struct evtchn_bind_interdomain."""

    remote_dom: U16  # in: DOMID_SELF gives a loopback channel
    remote_port: U32  # in: unbound there, and accepting the caller
    local_port: U32 = 0  # out: a fresh port of the caller


@abi_struct(size=12)
@dataclass(slots=True)
class EvtchnBindVirq:
    """struct evtchn_bind_virq."""

    virq: U32
    vcpu: U32
    port: U32 = 0  # out


@abi_struct(size=8)
@dataclass(slots=True)
class EvtchnBindIpi:
    """struct evtchn_bind_ipi."""

    vcpu: U32
    port: U32 = 0  # out


@abi_struct(size=4)
@dataclass(slots=True)
class EvtchnClose:
    """struct evtchn_close."""

    port: U32


@abi_struct(size=4)
@dataclass(slots=True)
class EvtchnSend:
    """struct evtchn_send."""

    port: U32


@abi_struct(size=24)
@dataclass(slots=True)
class EvtchnStatus:
    """struct evtchn_status; `u` is its union: what the port's kind needs, low word first."""

    dom: U16
    port: U32
    status: U32 = 0  # out: EvtchnStat
    vcpu: U32 = 0  # out
    u: U32 = 0  # out: remote domain, pirq or virq
    u_port: U32 = 0  # out: remote port of an interdomain channel


@abi_struct(size=8)
@dataclass(slots=True)
class EvtchnAllocUnbound:
    """struct evtchn_alloc_unbound."""

    dom: U16
    remote_dom: U16
    port: U32 = 0  # out


@abi_struct(size=8)
@dataclass(slots=True)
class EvtchnBindVcpu:
    """struct evtchn_bind_vcpu."""

    port: U32
    vcpu: U32


@abi_struct(size=4)
@dataclass(slots=True)
class EvtchnUnmask:
    """struct evtchn_unmask."""

    port: U32


@abi_struct(size=2)
@dataclass(slots=True)
class EvtchnReset:
    """struct evtchn_reset."""

    dom: U16
