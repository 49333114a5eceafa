"""Event channels: ports, what they are bound to, and who is told (Xen's common/event_channel.c).

A domain's ports are a table that grows by whole buckets, so a port may be valid, that is within the
table, and free. A free or reserved port keeps its bits in the guest's bitmaps, but nothing the
hypervisor does reaches them (evtchn_usable).

The far end of a channel is another domain's port, or a part of the VMM that stands in for Domain 0
(`backend`, a name that whoever owns the backends resolves).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.xen import NR_VIRQS, Virq
from hypervisor.domain.domain import Domain, Vcpu, VcpuState
from hypervisor.events.two_level import TwoLevel, nr_ports
from hypervisor.machine.memory import MachineMemory

#: Virtual interrupts that each vCPU has for itself; the others exist once per domain and are bound
#: on vCPU 0 (virq_is_global).
VCPU_VIRQS: Final = frozenset({Virq.TIMER, Virq.DEBUG, Virq.XENOPROF, Virq.XENPMU})
PORTS_PER_BUCKET: Final = 64  # EVTCHNS_PER_BUCKET


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

    @property
    def is_usable(self) -> bool:
        """Whether events can happen on it."""
        return self.state not in (PortState.FREE, PortState.RESERVED)


def _first_bucket() -> list[Channel]:
    reserved = Channel(PortState.RESERVED)  # port 0 is nobody's
    return [reserved, *(Channel() for _ in range(1, PORTS_PER_BUCKET))]


@dataclass(slots=True)
class PortTable:
    """A domain's valid ports."""

    nr_ports: int  # to which the table may grow
    channels: list[Channel] = field(default_factory=_first_bucket)


class EventChannels:
    """All domains' ports, and the delivery of events."""

    def __init__(self, memory: MachineMemory) -> None:
        self.bits = TwoLevel(memory)
        self._domains: dict[int, Domain] = {}
        self.tables: dict[int, PortTable] = {}
        # filled by the control side and by the backends' owner
        self.wake: Callable[[Vcpu], None] = _nobody  # a vCPU has a reason to run
        self.notify_backend: Callable[[Domain, str], None] = _no_backend

    def add_domain(self, dom: Domain) -> None:
        """Give `dom` an empty port table."""
        self.tables[dom.domid] = PortTable(nr_ports(dom.width))
        self._domains[dom.domid] = dom

    def remove_domain(self, domid: int) -> None:
        """Close every port of a domain that is going away."""
        self.reset(self._domains[domid])
        del self.tables[domid], self._domains[domid]

    # --- lookups -------------------------------------------------------------------------------
    def channel(self, dom: Domain, port: int) -> Channel:
        """A valid port, in use or free. Raises XenError(EINVAL) for one beyond the table."""
        channels = self.tables[dom.domid].channels
        if port >= len(channels):
            raise XenError(Errno.EINVAL, f"port {port} of d{dom.domid} does not exist")
        return channels[port]

    def get_free_port(self, dom: Domain) -> int:
        """The lowest free port of `dom`. Raises XenError(ENOSPC) when all are taken."""
        table = self.tables[dom.domid]
        channels = table.channels
        for port, channel in enumerate(channels):
            if channel.state is PortState.FREE:
                return port
        if len(channels) >= table.nr_ports:
            raise XenError(Errno.ENOSPC, f"d{dom.domid} has used all {table.nr_ports} ports")
        port = len(channels)
        channels.extend(Channel() for _ in range(PORTS_PER_BUCKET))
        return port

    def virq_port(self, dom: Domain, virq: int, vcpu_id: int) -> int:
        """The port a virtual interrupt is bound to, 0 when it is not."""
        for port, channel in enumerate(self.tables[dom.domid].channels):
            is_bound = channel.state is PortState.VIRQ and channel.virq == virq
            if is_bound and (virq not in VCPU_VIRQS or channel.vcpu_id == vcpu_id):
                return port
        return 0

    # --- binding -------------------------------------------------------------------------------
    def alloc_unbound(self, dom: Domain, remote_domid: int) -> int:
        """A new port of `dom` that `remote_domid` may bind."""
        return self._open(dom, Channel(PortState.UNBOUND, remote_domid=remote_domid))

    def bind_interdomain(self, dom: Domain, remote: Domain, remote_port: int) -> int:
        """A new port of `dom`, connected to an unbound one of `remote` that accepts it."""
        port = self.get_free_port(dom)
        far = self.channel(remote, remote_port)
        if far.state is not PortState.UNBOUND or far.remote_domid != dom.domid:
            raise XenError(
                Errno.EINVAL, f"port {remote_port} of d{remote.domid} is not open to d{dom.domid}"
            )
        near = Channel(PortState.INTERDOMAIN, remote_domid=remote.domid, remote_port=remote_port)
        self.tables[dom.domid].channels[port] = near
        far.state, far.remote_domid, far.remote_port = PortState.INTERDOMAIN, dom.domid, port
        # Something may have been sent before this end existed: better one event too many.
        self.set_pending(dom, port)
        return port

    def bind_backend(self, dom: Domain, backend: str, remote_domid: int) -> int:
        """A new port of `dom` whose other end is a part of the VMM, seen as `remote_domid`'s."""
        return self._open(
            dom, Channel(PortState.INTERDOMAIN, remote_domid=remote_domid, backend=backend)
        )

    def bind_virq(self, dom: Domain, virq: int, vcpu_id: int) -> int:
        """A new port of `dom` for a virtual interrupt."""
        if virq >= NR_VIRQS:
            raise XenError(Errno.EINVAL, f"VIRQ {virq} does not exist")
        if virq not in VCPU_VIRQS and vcpu_id:
            raise XenError(Errno.EINVAL, f"VIRQ {virq} is bound on vCPU 0, not {vcpu_id}")
        self._require_vcpu(dom, vcpu_id)
        if self.virq_port(dom, virq, vcpu_id):
            raise XenError(Errno.EEXIST, f"VIRQ {virq} is bound already on d{dom.domid}v{vcpu_id}")
        return self._open(dom, Channel(PortState.VIRQ, virq=virq, vcpu_id=vcpu_id))

    def bind_ipi(self, dom: Domain, vcpu_id: int) -> int:
        """A new port of `dom` by which it interrupts its own vCPU."""
        self._require_vcpu(dom, vcpu_id)
        return self._open(dom, Channel(PortState.IPI, vcpu_id=vcpu_id))

    def bind_vcpu(self, dom: Domain, port: int, vcpu_id: int) -> None:
        """Let `port` notify another vCPU from now on."""
        self._require_vcpu(dom, vcpu_id)
        channel = self.channel(dom, port)
        match channel.state:
            case PortState.UNBOUND | PortState.INTERDOMAIN | PortState.PIRQ:
                channel.vcpu_id = vcpu_id
            case PortState.VIRQ if channel.virq not in VCPU_VIRQS:
                channel.vcpu_id = vcpu_id
            case _:
                raise XenError(
                    Errno.EINVAL, f"port {port} is {channel.state.name}: its vCPU is fixed"
                )

    def close(self, dom: Domain, port: int) -> None:
        """Free `port`; the other end of an interdomain channel becomes unbound again."""
        channel = self.channel(dom, port)
        if not channel.is_usable:
            raise XenError(Errno.EINVAL, f"port {port} of d{dom.domid} is not open")
        if channel.state is PortState.INTERDOMAIN and not channel.backend:
            far = self.tables[channel.remote_domid].channels[channel.remote_port]
            far.state, far.remote_domid, far.remote_port = PortState.UNBOUND, dom.domid, 0
        self.tables[dom.domid].channels[port] = Channel()
        # or whoever is given the port next would hear of something that was not meant for him
        self.bits.clear_pending(dom, port)

    def reset(self, dom: Domain) -> None:
        """Close every port of `dom` (EVTCHNOP_reset)."""
        for port, channel in enumerate(self.tables[dom.domid].channels):
            if channel.is_usable:
                self.close(dom, port)

    def _open(self, dom: Domain, channel: Channel) -> int:
        port = self.get_free_port(dom)
        self.tables[dom.domid].channels[port] = channel
        return port

    def _require_vcpu(self, dom: Domain, vcpu_id: int) -> None:
        if vcpu_id >= len(dom.vcpus):
            raise XenError(Errno.ENOENT, f"d{dom.domid} has no vCPU {vcpu_id}")

    # --- events --------------------------------------------------------------------------------
    def send(self, dom: Domain, port: int) -> None:
        """Notify the other end of `port` (EVTCHNOP_send)."""
        channel = self.channel(dom, port)
        match channel.state:
            case PortState.INTERDOMAIN if channel.backend:
                self.notify_backend(dom, channel.backend)
            case PortState.INTERDOMAIN:
                self.set_pending(self._domains[channel.remote_domid], channel.remote_port)
            case PortState.IPI:
                self.set_pending(dom, port)
            case PortState.UNBOUND:
                pass  # nobody listens yet: silently lost, as in Xen
            case _:
                raise XenError(Errno.EINVAL, f"port {port} is {channel.state.name}: not to be sent")

    def notify_guest(self, dom: Domain, port: int, backend: str) -> None:
        """The other way round: `backend` notifies `dom`, unless that has closed their channel."""
        if self.tables[dom.domid].channels[port].backend == backend:
            self.set_pending(dom, port)

    def set_pending(self, dom: Domain, port: int) -> None:
        """Make an event happen on `port` of `dom`; not on one that is free."""
        channel = self.tables[dom.domid].channels[port]
        if not channel.is_usable:
            return
        vcpu = dom.vcpus[channel.vcpu_id]
        is_news, is_upcall = self.bits.set_pending(dom, port, vcpu)
        if is_upcall:
            self._unblock(vcpu)
        if is_news:
            self._wake_pollers(dom, port)

    def unmask(self, dom: Domain, port: int) -> None:
        """Clear the mask; an event that was waiting is raised now (EVTCHNOP_unmask)."""
        channel = self.channel(dom, port)
        if not channel.is_usable:
            return
        vcpu = dom.vcpus[channel.vcpu_id]
        if self.bits.unmask(dom, port, vcpu):
            self._unblock(vcpu)

    def raise_virq(self, dom: Domain, virq: int, vcpu_id: int) -> None:
        """Make a virtual interrupt happen, if it is bound."""
        if port := self.virq_port(dom, virq, vcpu_id):
            self.set_pending(dom, port)

    def is_pending(self, dom: Domain, port: int) -> bool:
        """Whether an event is waiting on `port`. Raises XenError(EINVAL) for an invalid one."""
        return self.channel(dom, port).is_usable and self.bits.is_pending(dom, port)

    def _unblock(self, vcpu: Vcpu) -> None:
        """An upcall is pending: whatever `vcpu` waits for is over (vcpu_unblock)."""
        if vcpu.waits_for in (VcpuState.BLOCKED, VcpuState.POLLING):
            self.wake(vcpu)

    def _wake_pollers(self, dom: Domain, port: int) -> None:
        """SCHEDOP_poll sees events on masked ports too, whichever vCPU they are for."""
        for vcpu in dom.vcpus:
            is_polling = vcpu.waits_for is VcpuState.POLLING
            if is_polling and (not vcpu.poll_ports or port in vcpu.poll_ports):
                self.wake(vcpu)


def _nobody(vcpu: Vcpu) -> None:
    """Nobody schedules yet."""


def _no_backend(dom: Domain, backend: str) -> None:
    raise AssertionError(f"backend {backend!r} of d{dom.domid} is not connected")
