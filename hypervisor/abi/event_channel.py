"""public/event_channel.h: ports and what can be done with them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hypervisor.abi.layout import U8, U16, U32, U64, ArrayOf, CharArray, abi_struct


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
    RESET_CONT = 14  # Xen's own: a long reset, going on


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


# --- the FIFO ABI --------------------------------------------------------------------------------
EVTCHN_FIFO_PRIORITY_MAX: Final = 0
EVTCHN_FIFO_PRIORITY_DEFAULT: Final = 7
EVTCHN_FIFO_PRIORITY_MIN: Final = 15
EVTCHN_FIFO_MAX_QUEUES: Final = EVTCHN_FIFO_PRIORITY_MIN + 1

EVTCHN_FIFO_PENDING: Final = 31  # bit numbers in an event word
EVTCHN_FIFO_MASKED: Final = 30
EVTCHN_FIFO_LINKED: Final = 29
EVTCHN_FIFO_BUSY: Final = 28
EVTCHN_FIFO_LINK_BITS: Final = 17
EVTCHN_FIFO_LINK_MASK: Final = (1 << EVTCHN_FIFO_LINK_BITS) - 1
EVTCHN_FIFO_NR_CHANNELS: Final = 1 << EVTCHN_FIFO_LINK_BITS


@abi_struct(size=72)
@dataclass(slots=True)
class EvtchnFifoControlBlock:
    """struct evtchn_fifo_control_block: a vCPU's queues, and where each begins."""

    ready: U32
    _rsvd: U32
    head: ArrayOf(U32, EVTCHN_FIFO_MAX_QUEUES)  # type: ignore[valid-type]


@abi_struct(size=24)
@dataclass(slots=True)
class EvtchnInitControl:
    """struct evtchn_init_control."""

    control_gfn: U64
    offset: U32  # of the control block in the frame
    vcpu: U32
    link_bits: U8 = 0  # out
    _pad: CharArray(7) = bytes(7)  # type: ignore[valid-type]


@abi_struct(size=8)
@dataclass(slots=True)
class EvtchnExpandArray:
    """struct evtchn_expand_array."""

    array_gfn: U64


@abi_struct(size=8)
@dataclass(slots=True)
class EvtchnSetPriority:
    """struct evtchn_set_priority."""

    port: U32
    priority: U32
