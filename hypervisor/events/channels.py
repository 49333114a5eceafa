"""Event channels, the 2-level ABI: ports, their binding, and the three words that make an upcall.

A port is a bit in the domain's shared_info: `pending` says that the event happened, `mask` that the
guest does not want to hear of it now. Setting a pending, unmasked bit sets its word's bit in the
vCPU's `pending_sel`, and then `upcall_pending`: the order in which the guest reads them back
(evtchn_2l_set_pending in Xen's common/event_2l.c). Bindings are in common/event_channel.c.

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
from hypervisor.domain.domain import Domain, Vcpu, VcpuState
from hypervisor.machine.memory import MachineMemory
from hypervisor.x86.paging import PAGE_SHIFT

#: Virtual interrupts that exist once per domain and are bound on vCPU 0 (virq_is_global).
GLOBAL_VIRQS: Final = frozenset({2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
NR_VIRQS: Final = 24


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


@dataclass(slots=True)
class PortTable:
    """A domain's ports; port 0 is never valid."""

    nr_ports: int  # 1024 or 4096: bits in a shared_info of its width
    pending_offset: int  # of evtchn_pending in shared_info, bytes
    mask_offset: int
    word_bits: int  # of the guest
    channels: list[Channel] = field(default_factory=lambda: [Channel(PortState.RESERVED)])


class EventChannels:
    """All domains' ports, and the delivery of events."""

    def __init__(self, memory: MachineMemory) -> None:
        self._memory = memory
        self._view = memory.view
        self._domains: dict[int, Domain] = {}
        self.tables: dict[int, PortTable] = {}
        self.wake: Callable[[Vcpu], None] = _nobody  # a vCPU has a reason to run: set by the vmm
        self.notify_backend: Callable[[Domain, str], None] = _no_backend

    def add_domain(self, dom: Domain) -> None:
        """Give `dom` an empty port table."""
        word = dom.width.bits
        nr = word * word
        self.tables[dom.domid] = PortTable(nr, 2048, 2048 + nr // 8, word)
        self._domains[dom.domid] = dom

    def remove_domain(self, domid: int) -> None:
        """Close every port of a domain that is going away."""
        self.reset(self._domains[domid])
        del self.tables[domid], self._domains[domid]

    # --- lookups -------------------------------------------------------------------
    def channel(self, dom: Domain, port: int) -> Channel:
        """The bound or unbound port `port`. Raises XenError(EINVAL) for one that does not exist."""
        channels = self.tables[dom.domid].channels
        if not 0 < port < len(channels):
            raise XenError(Errno.EINVAL, f"port {port} of d{dom.domid} does not exist")
        return channels[port]

    def get_free_port(self, dom: Domain) -> int:
        """A free port of `dom`. Raises XenError(ENOSPC) when all are taken."""
        table = self.tables[dom.domid]
        for port, channel in enumerate(table.channels):
            if channel.state is PortState.FREE:
                return port
        if len(table.channels) >= table.nr_ports:
            raise XenError(Errno.ENOSPC, f"d{dom.domid} has used all {table.nr_ports} ports")
        table.channels.append(Channel())
        return len(table.channels) - 1

    # --- binding -------------------------------------------------------------------
    def alloc_unbound(self, dom: Domain, remote_domid: int) -> int:
        """A new port of `dom` that `remote_domid` may bind."""
        port = self.get_free_port(dom)
        self._set(dom, port, Channel(PortState.UNBOUND, remote_domid=remote_domid))
        return port

    def bind_interdomain(self, dom: Domain, remote: Domain, remote_port: int) -> int:
        """A new port of `dom`, connected to an unbound one of `remote` that accepts it."""
        far = self.channel(remote, remote_port)
        if far.state is not PortState.UNBOUND or far.remote_domid != dom.domid:
            raise XenError(
                Errno.EINVAL, f"port {remote_port} of d{remote.domid} is not open to d{dom.domid}"
            )
        port = self.get_free_port(dom)
        self._set(
            dom,
            port,
            Channel(PortState.INTERDOMAIN, remote_domid=remote.domid, remote_port=remote_port),
        )
        far.state, far.remote_domid, far.remote_port = PortState.INTERDOMAIN, dom.domid, port
        # Something may have been sent before this end existed: better one event too many.
        self.set_pending(dom, port)
        return port

    def bind_backend(self, dom: Domain, backend: str, remote_domid: int) -> int:
        """A new port of `dom` whose other end is a part of the VMM, seen as `remote_domid`'s."""
        port = self.get_free_port(dom)
        channel = Channel(PortState.INTERDOMAIN, remote_domid=remote_domid, backend=backend)
        self._set(dom, port, channel)
        return port

    def bind_virq(self, dom: Domain, virq: int, vcpu_id: int) -> int:
        """A new port of `dom` for a virtual interrupt."""
        if virq >= NR_VIRQS:
            raise XenError(Errno.EINVAL, f"VIRQ {virq} does not exist")
        if virq in GLOBAL_VIRQS and vcpu_id:
            raise XenError(Errno.EINVAL, f"VIRQ {virq} is bound on vCPU 0, not {vcpu_id}")
        self._require_vcpu(dom, vcpu_id)
        if self.virq_port(dom, virq, vcpu_id):
            raise XenError(Errno.EEXIST, f"VIRQ {virq} is bound already on d{dom.domid}v{vcpu_id}")
        port = self.get_free_port(dom)
        self._set(dom, port, Channel(PortState.VIRQ, virq=virq, vcpu_id=vcpu_id))
        return port

    def bind_ipi(self, dom: Domain, vcpu_id: int) -> int:
        """A new port of `dom` by which it interrupts its own vCPU."""
        self._require_vcpu(dom, vcpu_id)
        port = self.get_free_port(dom)
        self._set(dom, port, Channel(PortState.IPI, vcpu_id=vcpu_id))
        return port

    def bind_vcpu(self, dom: Domain, port: int, vcpu_id: int) -> None:
        """Let `port` notify another vCPU from now on."""
        self._require_vcpu(dom, vcpu_id)
        channel = self.channel(dom, port)
        match channel.state:
            case PortState.UNBOUND | PortState.INTERDOMAIN | PortState.PIRQ:
                channel.vcpu_id = vcpu_id
            case PortState.VIRQ if channel.virq in GLOBAL_VIRQS:
                channel.vcpu_id = vcpu_id
            case _:
                raise XenError(
                    Errno.EINVAL, f"port {port} is {channel.state.name}: its vCPU is fixed"
                )

    def close(self, dom: Domain, port: int) -> None:
        """Free `port`; the other end of an interdomain channel becomes unbound again."""
        channel = self.channel(dom, port)
        if channel.state in (PortState.FREE, PortState.RESERVED):
            raise XenError(Errno.EINVAL, f"port {port} of d{dom.domid} is not open")
        if channel.state is PortState.INTERDOMAIN and not channel.backend:
            far_dom = self._domains[channel.remote_domid]
            far = self.channel(far_dom, channel.remote_port)
            far.state, far.remote_domid, far.remote_port = PortState.UNBOUND, dom.domid, 0
        self._set(dom, port, Channel())

    def reset(self, dom: Domain) -> None:
        """Close every port of `dom` (EVTCHNOP_reset)."""
        for port, channel in enumerate(self.tables[dom.domid].channels):
            if channel.state not in (PortState.FREE, PortState.RESERVED):
                self.close(dom, port)

    def _set(self, dom: Domain, port: int, channel: Channel) -> None:
        self.tables[dom.domid].channels[port] = channel
        self._write_bit(dom, self.tables[dom.domid].pending_offset, port, False)

    def _require_vcpu(self, dom: Domain, vcpu_id: int) -> None:
        if vcpu_id >= len(dom.vcpus):
            raise XenError(Errno.ENOENT, f"d{dom.domid} has no vCPU {vcpu_id}")

    # --- events ----------------------------------------------------------------------
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

    def set_pending(self, dom: Domain, port: int) -> None:
        """Make an event happen on `port` of `dom`."""
        table = self.tables[dom.domid]
        if self._test_bit(dom, table.pending_offset, port):
            return
        self._write_bit(dom, table.pending_offset, port, True)
        vcpu = dom.vcpus[table.channels[port].vcpu_id]
        if not self._test_bit(dom, table.mask_offset, port):
            self._select(table, vcpu, port)
        if vcpu.state is VcpuState.POLLING and (not vcpu.poll_ports or port in vcpu.poll_ports):
            self.wake(vcpu)

    def unmask(self, dom: Domain, port: int) -> None:
        """Clear the mask; an event that was waiting is raised now (EVTCHNOP_unmask)."""
        channel = self.channel(dom, port)
        table = self.tables[dom.domid]
        was_masked = self._test_bit(dom, table.mask_offset, port)
        self._write_bit(dom, table.mask_offset, port, False)
        if was_masked and self._test_bit(dom, table.pending_offset, port):
            self._select(table, dom.vcpus[channel.vcpu_id], port)

    def virq_port(self, dom: Domain, virq: int, vcpu_id: int) -> int:
        """The port a virtual interrupt is bound to, 0 when it is not."""
        for port, channel in enumerate(self.tables[dom.domid].channels):
            is_bound = channel.state is PortState.VIRQ and channel.virq == virq
            if is_bound and (virq in GLOBAL_VIRQS or channel.vcpu_id == vcpu_id):
                return port
        return 0

    def raise_virq(self, dom: Domain, virq: int, vcpu_id: int) -> None:
        """Make a virtual interrupt happen, if it is bound."""
        if port := self.virq_port(dom, virq, vcpu_id):
            self.set_pending(dom, port)

    def is_pending(self, dom: Domain, port: int) -> bool:
        """Whether the pending bit of `port` is set."""
        return self._test_bit(dom, self.tables[dom.domid].pending_offset, port)

    def mark_pending(self, vcpu: Vcpu) -> None:
        """Set upcall_pending and let the vCPU run (vcpu_mark_events_pending)."""
        at = vcpu.vcpu_info_maddr
        if not self._view[at]:
            self._view[at] = 1
            if vcpu.state in (VcpuState.BLOCKED, VcpuState.POLLING):
                self.wake(vcpu)

    def _select(self, table: PortTable, vcpu: Vcpu, port: int) -> None:
        word_bytes = table.word_bits // 8
        at = vcpu.vcpu_info_maddr + word_bytes  # evtchn_pending_sel follows the two flag bytes
        selector = int.from_bytes(self._view[at : at + word_bytes], "little")
        bit = 1 << port // table.word_bits
        if selector & bit:
            return
        selector |= bit
        self._view[at : at + word_bytes] = selector.to_bytes(word_bytes, "little")
        self.mark_pending(vcpu)

    def _test_bit(self, dom: Domain, offset: int, port: int) -> bool:
        at = (dom.shared_info_mfn << PAGE_SHIFT) + offset + (port >> 3)
        return bool(self._view[at] >> (port & 7) & 1)

    def _write_bit(self, dom: Domain, offset: int, port: int, value: bool) -> None:
        at = (dom.shared_info_mfn << PAGE_SHIFT) + offset + (port >> 3)
        bit = 1 << (port & 7)
        self._view[at] = self._view[at] | bit if value else self._view[at] & ~bit


def _nobody(vcpu: Vcpu) -> None:
    """Nobody schedules yet."""


def _no_backend(dom: Domain, backend: str) -> None:
    raise AssertionError(f"backend {backend!r} of d{dom.domid} is not connected")
