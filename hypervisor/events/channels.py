"""Event channels: ports, what they are bound to, and who is told (Xen's common/event_channel.c).

How a domain is told is one of two ABIs, which it chooses: bitmaps (two_level), with which it
starts, or queues (fifo). A free or reserved port keeps what the guest wrote there, but nothing the
hypervisor does reaches it (evtchn_usable).

The far end of a channel is another domain's port, or a part of the VMM that stands in for Domain 0
(`backend`, a name that whoever owns the backends resolves).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.event_channel import EVTCHN_FIFO_PRIORITY_DEFAULT
from hypervisor.abi.xen import NR_VIRQS
from hypervisor.domain.domain import Domain, Vcpu, VcpuState
from hypervisor.events.fifo import Fifo
from hypervisor.events.ports import Channel, PortState, PortTable, is_global, virq_key
from hypervisor.events.two_level import TwoLevel, nr_ports
from hypervisor.machine.memory import MachineMemory

_FREE: Final = PortState.FREE
_RESERVED: Final = PortState.RESERVED
_BLOCKED: Final = VcpuState.BLOCKED
_POLLING: Final = VcpuState.POLLING
_DOWN: Final = VcpuState.DOWN
_RESET_AT_ONCE: Final = 1024  # ports that one piece of EVTCHNOP_reset closes


class EventChannels:
    """All domains' ports, and the delivery of events."""

    def __init__(self, memory: MachineMemory) -> None:
        self.bits = TwoLevel(memory)
        self.fifo = Fifo(memory)
        self._domains: dict[int, Domain] = {}
        self.tables: dict[int, PortTable] = {}
        # filled by the control side and by the backends' owner
        self.wake: Callable[[Vcpu], None] = _nobody  # a vCPU has a reason to run
        self.interrupted: Callable[[Vcpu], None] = _nobody  # another vCPU of its domain sent an IPI
        self.notify_backend: Callable[[Domain, str], None] = _no_backend

    def add_domain(self, dom: Domain) -> None:
        """Give `dom` an empty port table."""
        self.tables[dom.domid] = PortTable(nr_ports(dom.width))
        self.bits.add_domain(dom)
        self._domains[dom.domid] = dom

    def remove_domain(self, domid: int) -> None:
        """Close every port of a domain that is going away."""
        dom = self._domains[domid]
        for port, channel in enumerate(self.tables[domid].channels):
            if channel.is_usable:
                self.close(dom, port)
        self.fifo.destroy(dom, self.tables[domid])
        self.bits.remove_domain(domid)
        del self.tables[domid], self._domains[domid]

    # --- lookups -------------------------------------------------------------------------------
    def channel(self, dom: Domain, port: int) -> Channel:
        """A valid port, in use or free. Raises XenError(EINVAL) for one beyond the table."""
        channels = self.tables[dom.domid].channels
        if port >= len(channels):
            raise XenError(Errno.EINVAL, f"port {port} of d{dom.domid} does not exist")
        return channels[port]

    def get_free_port(self, dom: Domain) -> int:
        """The lowest free port of `dom` that is in no queue of the guest's any more.

        Raises XenError(ENOSPC) when all are taken.
        """
        table = self.tables[dom.domid]
        port = self._lowest_free(table)
        if port is None:
            if len(table.channels) >= table.nr_ports:
                raise XenError(Errno.ENOSPC, f"d{dom.domid} has used all {table.nr_ports} ports")
            port = table.grow()
        elif port >= table.nr_ports:  # it grew while another ABI was in use
            raise XenError(Errno.ENOSPC, f"d{dom.domid} has used all {table.nr_ports} ports")
        return port

    def _lowest_free(self, table: PortTable) -> int | None:
        heap, state = table.free_ports, table.fifo
        if state is None:
            return heap[0] if heap else None
        busy: list[int] = []
        while heap and self.fifo.is_busy(state, heap[0]):
            busy.append(heapq.heappop(heap))
        found = heap[0] if heap else None
        for port in busy:
            heapq.heappush(heap, port)
        return found

    def virq_port(self, dom: Domain, virq: int, vcpu_id: int) -> int:
        """The port a virtual interrupt is bound to, 0 when it is not."""
        return self.tables[dom.domid].virq_ports.get(virq_key(virq, vcpu_id), 0)

    # --- binding -------------------------------------------------------------------------------
    def alloc_unbound(self, dom: Domain, remote_domid: int) -> int:
        """A new port of `dom` that `remote_domid` may bind."""
        port, channel = self._open(dom, PortState.UNBOUND)
        channel.remote_domid = remote_domid
        return port

    def bind_interdomain(self, dom: Domain, remote: Domain, remote_port: int) -> int:
        """A new port of `dom`, connected to an unbound one of `remote` that accepts it."""
        self.get_free_port(dom)  # ENOSPC is found out first
        far = self.channel(remote, remote_port)
        if not self._is_open_to(far, dom):
            raise XenError(
                Errno.EINVAL, f"port {remote_port} of d{remote.domid} is not open to d{dom.domid}"
            )
        port, near = self._open(dom, PortState.INTERDOMAIN)
        near.remote_domid, near.remote_port = remote.domid, remote_port
        far.state, far.remote_domid, far.remote_port = PortState.INTERDOMAIN, dom.domid, port
        # Something may have been sent before this end existed: better one event too many.
        self.set_pending(dom, port)
        return port

    @staticmethod
    def _is_open_to(far: Channel, dom: Domain) -> bool:
        return far.state is PortState.UNBOUND and far.remote_domid == dom.domid

    def bind_backend(self, dom: Domain, backend: str, remote_domid: int) -> int:
        """A new port of `dom` whose other end is a part of the VMM, seen as `remote_domid`'s."""
        port, channel = self._open(dom, PortState.INTERDOMAIN)
        channel.remote_domid, channel.backend = remote_domid, backend
        return port

    def bind_virq(self, dom: Domain, virq: int, vcpu_id: int) -> int:
        """A new port of `dom` for a virtual interrupt."""
        if virq >= NR_VIRQS:
            raise XenError(Errno.EINVAL, f"VIRQ {virq} does not exist")
        if is_global(virq) and vcpu_id:
            raise XenError(Errno.EINVAL, f"VIRQ {virq} is bound on vCPU 0, not {vcpu_id}")
        self._require_vcpu(dom, vcpu_id)
        if self.virq_port(dom, virq, vcpu_id):
            raise XenError(Errno.EEXIST, f"VIRQ {virq} is bound already on d{dom.domid}v{vcpu_id}")
        port, channel = self._open(dom, PortState.VIRQ)
        channel.virq, channel.vcpu_id = virq, vcpu_id
        self.tables[dom.domid].virq_ports[virq_key(virq, vcpu_id)] = port
        return port

    def bind_ipi(self, dom: Domain, vcpu_id: int) -> int:
        """A new port of `dom` by which it interrupts its own vCPU."""
        self._require_vcpu(dom, vcpu_id)
        port, channel = self._open(dom, PortState.IPI)
        channel.vcpu_id = vcpu_id
        return port

    def bind_vcpu(self, dom: Domain, port: int, vcpu_id: int) -> None:
        """Let `port` notify another vCPU from now on."""
        self._require_vcpu(dom, vcpu_id)
        channel = self.channel(dom, port)
        match channel.state:
            case PortState.UNBOUND | PortState.INTERDOMAIN | PortState.PIRQ:
                channel.vcpu_id = vcpu_id
            case PortState.VIRQ if is_global(channel.virq):
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
        table = self.tables[dom.domid]
        if channel.state is PortState.INTERDOMAIN and not channel.backend:
            far = self.tables[channel.remote_domid].channels[channel.remote_port]
            far.state, far.remote_domid, far.remote_port = PortState.UNBOUND, dom.domid, 0
        elif channel.state is PortState.VIRQ:
            key = virq_key(channel.virq, 0 if is_global(channel.virq) else channel.vcpu_id)
            del table.virq_ports[key]
        table.give_back(port)
        # or whoever is given the port next would hear of something that was not meant for him
        if table.fifo is None:
            self.bits.clear_pending(dom, port)
        else:
            self.fifo.clear_pending(table.fifo, port)

    def reset(self, dom: Domain, *, resuming: bool = False) -> bool:
        """Close every port of `dom`, or some of them; whether that was all (EVTCHNOP_reset).

        When all are closed the domain is back at the 2-level ABI. Raises XenError(EBUSY) if another
        reset is under way, or, `resuming`, if none is.
        """
        table = self.tables[dom.domid]
        start = table.next_to_reset if resuming else int(not table.next_to_reset)
        if not start:
            raise XenError(Errno.EBUSY, f"the ports of d{dom.domid}: a reset is or is not going on")
        end = min(len(table.channels), start + _RESET_AT_ONCE)
        for port in range(start, end):
            if table.channels[port].is_usable:
                self.close(dom, port)
        table.next_to_reset = end
        if end < len(table.channels):
            return False
        table.next_to_reset = 0
        self.fifo.destroy(dom, table)
        table.nr_ports = nr_ports(dom.width)
        return True

    def _open(self, dom: Domain, state: PortState) -> tuple[int, Channel]:
        """The lowest free port, which is in `state` now."""
        port = self.get_free_port(dom)
        channel = self.tables[dom.domid].take(port)
        channel.state, channel.priority = state, EVTCHN_FIFO_PRIORITY_DEFAULT
        return port, channel

    def _require_vcpu(self, dom: Domain, vcpu_id: int) -> None:
        if vcpu_id >= len(dom.vcpus):
            raise XenError(Errno.ENOENT, f"d{dom.domid} has no vCPU {vcpu_id}")

    # --- the FIFO ABI --------------------------------------------------------------------------
    def init_control(self, dom: Domain, vcpu_id: int, mfn: int, offset: int) -> None:
        """A vCPU's control block; the first one switches the domain to the FIFO ABI.

        Events that the bitmaps have are not lost: they happen again when their port has a word.
        """
        self._require_vcpu(dom, vcpu_id)
        table = self.tables[dom.domid]
        was_two_level = table.fifo is None
        self.fifo.init_control(dom, table, vcpu_id, mfn, offset)
        if was_two_level:
            for port, channel in enumerate(table.channels[: nr_ports(dom.width)]):
                channel.is_waiting = bool(port) and self.bits.is_pending(dom, port)

    def expand_array(self, dom: Domain, mfn: int) -> None:
        """Words for 1024 more ports."""
        for port in self.fifo.expand_array(dom, self.tables[dom.domid], mfn):
            self.set_pending(dom, port)

    def set_priority(self, dom: Domain, port: int, priority: int) -> None:
        """Which queue a port's events go to from now on."""
        channel = self.channel(dom, port)
        if self.tables[dom.domid].fifo is None:
            raise XenError(Errno.ENOSYS, "2-level ports have no priorities")
        if not channel.is_usable:
            raise XenError(Errno.EACCES, f"port {port} of d{dom.domid} is not open")
        self.fifo.set_priority(channel, priority)

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
                self.interrupted(dom.vcpus[channel.vcpu_id])
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
        table = self.tables[dom.domid]
        channel = table.channels[port]
        state = channel.state
        if state is _FREE or state is _RESERVED:
            return
        vcpu = dom.vcpus[channel.vcpu_id]
        if table.fifo is None:
            is_news, is_upcall = self.bits.set_pending(dom, port, vcpu)
        else:
            is_news, is_ready = self.fifo.set_pending(table.fifo, channel, port, channel.vcpu_id)
            is_upcall = is_ready and self.bits.mark_pending(vcpu)
        if is_upcall:
            self._unblock(vcpu)
        if is_news:
            self._wake_pollers(dom, port)

    def unmask(self, dom: Domain, port: int) -> None:
        """Clear the mask; an event that was waiting is raised now (EVTCHNOP_unmask)."""
        channel = self.channel(dom, port)
        if not channel.is_usable:
            return
        fifo = self.tables[dom.domid].fifo
        if fifo is not None:
            if self.fifo.unmask(fifo, port):
                self.set_pending(dom, port)
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
        if not self.channel(dom, port).is_usable:
            return False
        fifo = self.tables[dom.domid].fifo
        if fifo is None:
            return self.bits.is_pending(dom, port)
        return self.fifo.is_pending(fifo, port)

    def _unblock(self, vcpu: Vcpu) -> None:
        """An upcall is pending: whatever `vcpu` waits for is over (vcpu_unblock)."""
        state = vcpu.state
        if state is _BLOCKED or state is _POLLING or state is _DOWN:
            self.wake(vcpu)

    def _wake_pollers(self, dom: Domain, port: int) -> None:
        """SCHEDOP_poll sees events on masked ports too, whichever vCPU they are for."""
        for vcpu in dom.vcpus:
            state = vcpu.state
            if state is not _POLLING and (state is not _DOWN or vcpu.state_when_up is not _POLLING):
                continue
            if not vcpu.poll_ports or port in vcpu.poll_ports:
                self.wake(vcpu)


def _nobody(vcpu: Vcpu) -> None:
    """Nobody schedules yet."""


def _no_backend(dom: Domain, backend: str) -> None:
    raise AssertionError(f"backend {backend!r} of d{dom.domid} is not connected")
