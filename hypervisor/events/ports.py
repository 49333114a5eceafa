"""A domain's ports: what each is bound to, which are free, and where virtual interrupts go.

The table grows by whole buckets, so a port may be valid, that is within the table, and free. What
is asked for at every event is kept so that it can be looked up: the lowest free port, and the port
of a virtual interrupt.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from hypervisor.abi.event_channel import EVTCHN_FIFO_PRIORITY_DEFAULT, EVTCHN_FIFO_PRIORITY_MIN
from hypervisor.abi.xen import Virq

PORTS_PER_BUCKET: Final = 64  # EVTCHNS_PER_BUCKET

#: Virtual interrupts that each vCPU has for itself, as a set of bits; the others exist once per
#: domain and are bound on vCPU 0 (virq_is_global).
VCPU_VIRQS: Final = 1 << Virq.TIMER | 1 << Virq.DEBUG | 1 << Virq.XENOPROF | 1 << Virq.XENPMU


class PortState(Enum):
    """What a port is bound to (ECS_*)."""

    FREE = 0
    RESERVED = 1
    UNBOUND = 2
    INTERDOMAIN = 3
    PIRQ = 4
    VIRQ = 5
    IPI = 6


@dataclass(slots=True)
class Channel:
    """One port of a domain."""

    state: PortState = PortState.FREE
    remote_domid: int = 0  # UNBOUND: who may bind; INTERDOMAIN: the other end
    remote_port: int = 0
    backend: str = ""  # INTERDOMAIN with a part of the VMM
    virq: int = 0
    vcpu_id: int = 0  # whom it notifies
    priority: int = EVTCHN_FIFO_PRIORITY_DEFAULT  # FIFO: of the queue its next event goes to
    last_vcpu_id: int = 0  # FIFO: the queue it was linked into last; closing does not take it out
    last_priority: int = 0
    is_waiting: bool = False  # FIFO: an event happened before the array had a word for it

    @property
    def is_usable(self) -> bool:
        """Whether events can happen on it."""
        return self.state not in (PortState.FREE, PortState.RESERVED)

    def free(self) -> None:
        """Bound to nothing, and to vCPU 0 when it is bound again."""
        self.state = PortState.FREE
        self.remote_domid = self.remote_port = self.virq = self.vcpu_id = 0
        self.backend = ""
        self.is_waiting = False


@dataclass(slots=True)
class FifoQueues:
    """A vCPU's end of the FIFO ABI."""

    control_maddr: int = 0  # of its control block, in a frame of the guest's; 0 before it has one
    tails: list[int] = field(default_factory=lambda: [0] * (EVTCHN_FIFO_PRIORITY_MIN + 1))


@dataclass(slots=True)
class FifoState:
    """A domain's, when it uses that ABI: frames of the guest's, held writable."""

    queues: list[FifoQueues]
    array: list[int] = field(default_factory=list)  # mfns of the event words, 1024 in each
    nr_words: int = 0


def _first_bucket() -> list[Channel]:
    reserved = Channel(PortState.RESERVED)  # port 0 is nobody's
    return [reserved, *(Channel() for _ in range(1, PORTS_PER_BUCKET))]


@dataclass(slots=True)
class PortTable:
    """A domain's valid ports."""

    nr_ports: int  # to which the table may grow: what the ABI in use can name
    channels: list[Channel] = field(default_factory=_first_bucket)
    free_ports: list[int] = field(default_factory=lambda: list(range(1, PORTS_PER_BUCKET)))  # heap
    virq_ports: dict[int, int] = field(default_factory=dict)  # by virq_key
    fifo: FifoState | None = None  # None: 2-level
    next_to_reset: int = 0  # a reset is under way, and has come here

    def take(self, port: int) -> Channel:
        """`port`, which is free, is not any more."""
        if self.free_ports[0] == port:
            heapq.heappop(self.free_ports)
        else:  # lower ones are still in a queue of the guest's
            self.free_ports.remove(port)
            heapq.heapify(self.free_ports)
        return self.channels[port]

    def give_back(self, port: int) -> None:
        """`port` is free again."""
        self.channels[port].free()
        heapq.heappush(self.free_ports, port)

    def grow(self) -> int:
        """One more bucket; its first port."""
        first = len(self.channels)
        self.channels.extend(Channel() for _ in range(PORTS_PER_BUCKET))
        # a heap stays one when what is appended is greater than all there is
        for port in range(first, first + PORTS_PER_BUCKET):
            heapq.heappush(self.free_ports, port)
        return first


def is_global(virq: int) -> bool:
    """Whether a virtual interrupt exists once per domain."""
    return not VCPU_VIRQS >> virq & 1


def virq_key(virq: int, vcpu_id: int) -> int:
    """Under which number a virtual interrupt's port is found."""
    return vcpu_id << 8 | virq if VCPU_VIRQS >> virq & 1 else virq
