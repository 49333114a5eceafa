"""Ports: what they can be bound to, what closing does, and where events go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.width import Width
from hypervisor.abi.xen import Virq
from hypervisor.domain.domain import Domain, Vcpu, VcpuState
from hypervisor.events.channels import EventChannels
from hypervisor.events.ports import PORTS_PER_BUCKET, PortState
from tests.support.callers import guests, refused


class Pair:
    """Two domains of one width, and their ports."""

    def __init__(self, near: Domain, far: Domain, events: EventChannels) -> None:
        self.near, self.far, self.events = near, far, events

    def connect(self) -> tuple[int, int]:
        """An interdomain channel: its port in `near` and its port in `far`."""
        far_port = self.events.alloc_unbound(self.far, self.near.domid)
        return self.events.bind_interdomain(self.near, self.far, far_port), far_port

    def take(self, dom: Domain, port: int) -> bool:
        """Whether an event was pending; it is not afterwards."""
        was_pending = self.events.bits.is_pending(dom, port)
        self.events.bits.clear_pending(dom, port)
        return was_pending


@pytest.fixture(params=[Width.X86_32, Width.X86_64], ids=lambda width: width.name)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with guests(request.param, request.param) as (one, other):
        yield Pair(one.dom, other.dom, one.host.events)


# --- the table ------------------------------------------------------------------------------------
def test_lowest_free_port_is_given(pair: Pair) -> None:
    first = pair.events.alloc_unbound(pair.near, 0)
    second = pair.events.alloc_unbound(pair.near, 0)
    pair.events.close(pair.near, first)
    assert second == first + 1
    assert pair.events.alloc_unbound(pair.near, 0) == first


def test_table_grows_by_buckets_until_its_bitmaps_are_full(pair: Pair) -> None:
    table = pair.events.tables[pair.near.domid]
    free = sum(channel.state is PortState.FREE for channel in table.channels)
    for _ in range(free + 1):
        port = pair.events.alloc_unbound(pair.near, 0)
    assert (port, len(table.channels)) == (PORTS_PER_BUCKET, 2 * PORTS_PER_BUCKET)
    for port in range(PORTS_PER_BUCKET + 1, table.nr_ports):
        assert pair.events.alloc_unbound(pair.near, 0) == port
    with refused(Errno.ENOSPC, rf"^d{pair.near.domid} has used all {table.nr_ports} ports$"):
        pair.events.alloc_unbound(pair.near, 0)


def test_port_0_is_never_given_and_never_closed(pair: Pair) -> None:
    with refused(Errno.EINVAL, "^port 0 of d1 is not open$"):
        pair.events.close(pair.near, 0)


def test_port_beyond_the_table_does_not_exist(pair: Pair) -> None:
    with refused(Errno.EINVAL, "^port 64 of d1 does not exist$"):
        pair.events.channel(pair.near, PORTS_PER_BUCKET)


# --- interdomain ----------------------------------------------------------------------------------
def test_bind_interdomain_connects_both_ends(pair: Pair) -> None:
    near_port, far_port = pair.connect()
    near = pair.events.channel(pair.near, near_port)
    far = pair.events.channel(pair.far, far_port)
    assert near.state is far.state is PortState.INTERDOMAIN
    assert (near.remote_domid, near.remote_port) == (pair.far.domid, far_port)
    assert (far.remote_domid, far.remote_port) == (pair.near.domid, near_port)


def test_bind_interdomain_leaves_the_new_port_pending(pair: Pair) -> None:
    near_port, far_port = pair.connect()
    assert pair.take(pair.near, near_port)
    assert not pair.take(pair.far, far_port)


def test_bind_interdomain_to_a_port_for_somebody_else_is_refused(pair: Pair) -> None:
    port = pair.events.alloc_unbound(pair.far, 77)
    with refused(Errno.EINVAL, rf"^port {port} of d2 is not open to d1$"):
        pair.events.bind_interdomain(pair.near, pair.far, port)


def test_a_port_can_be_bound_once(pair: Pair) -> None:
    _, far_port = pair.connect()
    with refused(Errno.EINVAL, "is not open to d1"):
        pair.events.bind_interdomain(pair.near, pair.far, far_port)


def test_no_free_port_is_found_out_before_the_other_end_is_looked_at(pair: Pair) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair.events.tables[pair.near.domid], "nr_ports", PORTS_PER_BUCKET)
        while any(
            channel.state is PortState.FREE
            for channel in pair.events.tables[pair.near.domid].channels
        ):
            pair.events.bind_ipi(pair.near, 0)
        with refused(Errno.ENOSPC, "has used all"):
            pair.events.bind_interdomain(pair.near, pair.far, 9999)


def test_loopback_channel_has_both_ends_in_one_domain(pair: Pair) -> None:
    unbound = pair.events.alloc_unbound(pair.near, pair.near.domid)
    bound = pair.events.bind_interdomain(pair.near, pair.near, unbound)
    pair.take(pair.near, bound)
    pair.events.send(pair.near, bound)
    assert pair.take(pair.near, unbound)
    assert not pair.take(pair.near, bound)


def test_close_leaves_peer_unbound_for_the_same_domain(pair: Pair) -> None:
    near_port, far_port = pair.connect()
    pair.events.close(pair.near, near_port)
    far = pair.events.channel(pair.far, far_port)
    assert (far.state, far.remote_domid) == (PortState.UNBOUND, pair.near.domid)
    assert pair.events.bind_interdomain(pair.near, pair.far, far_port) == near_port


def test_close_of_a_free_port_is_refused(pair: Pair) -> None:
    port, _ = pair.connect()
    pair.events.close(pair.near, port)
    with refused(Errno.EINVAL, rf"^port {port} of d1 is not open$"):
        pair.events.close(pair.near, port)


def test_close_forgets_what_was_pending_but_keeps_the_mask(pair: Pair) -> None:
    port = pair.events.bind_ipi(pair.near, 0)
    masked = pair.events.bits.is_masked(pair.near, port)
    pair.events.send(pair.near, port)
    pair.events.close(pair.near, port)
    assert not pair.events.bits.is_pending(pair.near, port)
    assert pair.events.bits.is_masked(pair.near, port) is masked


def test_closed_port_notifies_vcpu_0_again(pair: Pair) -> None:
    port = pair.events.bind_ipi(pair.near, 0)
    pair.events.channel(pair.near, port).vcpu_id = 1
    pair.events.close(pair.near, port)
    assert pair.events.channel(pair.near, port).vcpu_id == 0


def test_reset_closes_everything(pair: Pair) -> None:
    _, far_port = pair.connect()
    pair.events.bind_virq(pair.near, Virq.TIMER, 0)
    pair.events.reset(pair.near)
    states = {channel.state for channel in pair.events.tables[pair.near.domid].channels}
    assert states == {PortState.FREE, PortState.RESERVED}
    assert pair.events.channel(pair.far, far_port).state is PortState.UNBOUND


# --- virtual interrupts and IPIs ------------------------------------------------------------------
@pytest.mark.parametrize("virq", [24, 0xFFFF_FFFF])
def test_virq_that_does_not_exist_is_refused(pair: Pair, virq: int) -> None:
    with refused(Errno.EINVAL, rf"^VIRQ {virq} does not exist$"):
        pair.events.bind_virq(pair.near, virq, 0)


@pytest.mark.parametrize("virq", [Virq.CONSOLE, Virq.DOM_EXC, 5, Virq.ENOMEM, 16, 23])
def test_global_virq_is_bound_on_vcpu_0_only(pair: Pair, virq: int) -> None:
    with refused(Errno.EINVAL, rf"^VIRQ {int(virq)} is bound on vCPU 0, not 1$"):
        pair.events.bind_virq(pair.near, virq, 1)


@pytest.mark.parametrize("virq", [Virq.TIMER, Virq.DEBUG, Virq.XENOPROF, Virq.XENPMU])
def test_vcpus_own_virq_needs_the_vcpu(pair: Pair, virq: int) -> None:
    with refused(Errno.ENOENT, "^d1 has no vCPU 1$"):
        pair.events.bind_virq(pair.near, virq, 1)


def test_virq_is_bound_once(pair: Pair) -> None:
    pair.events.bind_virq(pair.near, Virq.TIMER, 0)
    with refused(Errno.EEXIST, r"^VIRQ 0 is bound already on d1v0$"):
        pair.events.bind_virq(pair.near, Virq.TIMER, 0)


def test_closed_virq_can_be_bound_again(pair: Pair) -> None:
    port = pair.events.bind_virq(pair.near, Virq.TIMER, 0)
    pair.events.close(pair.near, port)
    pair.events.raise_virq(pair.near, Virq.TIMER, 0)
    assert not pair.take(pair.near, port)
    assert pair.events.bind_virq(pair.near, Virq.TIMER, 0) == port


def test_raised_virq_is_pending_on_its_port(pair: Pair) -> None:
    port = pair.events.bind_virq(pair.near, Virq.DEBUG, 0)
    pair.events.raise_virq(pair.near, Virq.TIMER, 0)
    assert not pair.take(pair.near, port)
    pair.events.raise_virq(pair.near, Virq.DEBUG, 0)
    assert pair.take(pair.near, port)


def test_ipi_needs_its_vcpu(pair: Pair) -> None:
    with refused(Errno.ENOENT, "^d1 has no vCPU 7$"):
        pair.events.bind_ipi(pair.near, 7)


def test_bind_vcpu_moves_what_is_not_a_vcpus_own(pair: Pair) -> None:
    port, _ = pair.connect()
    console = pair.events.bind_virq(pair.near, Virq.CONSOLE, 0)
    for movable in (port, console):
        pair.events.bind_vcpu(pair.near, movable, 0)


def test_bind_vcpu_leaves_what_is(pair: Pair) -> None:
    ipi = pair.events.bind_ipi(pair.near, 0)
    timer = pair.events.bind_virq(pair.near, Virq.TIMER, 0)
    for port, kind in ((ipi, "IPI"), (timer, "VIRQ"), (60, "FREE"), (0, "RESERVED")):
        with refused(Errno.EINVAL, rf"^port {port} is {kind}: its vCPU is fixed$"):
            pair.events.bind_vcpu(pair.near, port, 0)


def test_bind_vcpu_looks_for_the_vcpu_first(pair: Pair) -> None:
    with refused(Errno.ENOENT, "^d1 has no vCPU 9$"):
        pair.events.bind_vcpu(pair.near, 9999, 9)


# --- sending --------------------------------------------------------------------------------------
def test_send_reaches_the_other_end_alone(pair: Pair) -> None:
    near_port, far_port = pair.connect()
    pair.take(pair.near, near_port)
    pair.events.send(pair.near, near_port)
    assert pair.take(pair.far, far_port)
    assert not pair.take(pair.near, near_port)


def test_send_on_an_unbound_port_is_lost(pair: Pair) -> None:
    port = pair.events.alloc_unbound(pair.near, pair.far.domid)
    pair.events.send(pair.near, port)
    assert not pair.take(pair.near, port)


def test_send_on_a_virq_or_a_free_port_is_refused(pair: Pair) -> None:
    timer = pair.events.bind_virq(pair.near, Virq.TIMER, 0)
    for port, kind in ((timer, "VIRQ"), (60, "FREE"), (0, "RESERVED")):
        with refused(Errno.EINVAL, rf"^port {port} is {kind}: not to be sent$"):
            pair.events.send(pair.near, port)


def test_free_port_never_becomes_pending(pair: Pair) -> None:
    pair.events.set_pending(pair.near, 60)
    assert not pair.events.bits.is_pending(pair.near, 60)


def test_bit_that_the_guest_set_on_a_free_port_is_no_event(pair: Pair) -> None:
    pair.events.bits.set_pending(pair.near, 60, pair.near.vcpus[0])
    assert not pair.events.is_pending(pair.near, 60)


def test_backend_is_told_by_send(pair: Pair) -> None:
    told: list[tuple[int, str]] = []
    pair.events.notify_backend = lambda dom, backend: told.append((dom.domid, backend))
    port = pair.events.bind_backend(pair.near, "block", 0)
    pair.events.send(pair.near, port)
    assert told == [(pair.near.domid, "block")]


def test_backend_reaches_a_guest_only_by_its_own_port(pair: Pair) -> None:
    port = pair.events.bind_backend(pair.near, "block", 0)
    pair.events.notify_guest(pair.near, port, "block")
    assert pair.take(pair.near, port)
    pair.events.close(pair.near, port)
    assert pair.events.bind_ipi(pair.near, 0) == port
    pair.events.notify_guest(pair.near, port, "block")
    assert not pair.take(pair.near, port)


# --- whom an event wakes --------------------------------------------------------------------------
def is_awake(vcpu: Vcpu) -> bool:
    return vcpu.state is VcpuState.RUNNABLE


def wait(vcpu: Vcpu, state: VcpuState, *ports: int) -> None:
    vcpu.state, vcpu.poll_ports = state, ports


def test_upcall_wakes_a_blocked_vcpu(pair: Pair) -> None:
    vcpu = pair.near.vcpus[0]
    port = pair.events.bind_ipi(pair.near, 0)
    wait(vcpu, VcpuState.BLOCKED)
    pair.events.set_pending(pair.near, port)
    assert is_awake(vcpu)


def test_masked_port_leaves_a_blocked_vcpu_asleep(pair: Pair) -> None:
    vcpu = pair.near.vcpus[0]
    port = pair.events.bind_ipi(pair.near, 0)
    mask(pair, port)
    wait(vcpu, VcpuState.BLOCKED)
    pair.events.set_pending(pair.near, port)
    assert not is_awake(vcpu)
    pair.events.unmask(pair.near, port)
    assert is_awake(vcpu)


def mask(pair: Pair, port: int) -> None:
    """As the guest does, in its shared_info."""
    bits = pair.near.width.bits
    at = (pair.near.shared_info_mfn << 12) + 2048 + bits * bits // 8 + port // 8
    pair.events.bits._view[at] |= 1 << port % 8


@pytest.mark.parametrize(
    ("polled", "wakes"), [((5,), True), ((6,), False), ((), True)], ids=["it", "another", "any"]
)
def test_masked_port_wakes_a_poller_of_it(pair: Pair, polled: tuple[int, ...], wakes: bool) -> None:
    vcpu = pair.near.vcpus[0]
    while (port := pair.events.bind_ipi(pair.near, 0)) != 5:
        pass
    mask(pair, port)
    wait(vcpu, VcpuState.POLLING, *polled)
    pair.events.set_pending(pair.near, port)
    assert is_awake(vcpu) is wakes


def test_event_that_is_pending_already_wakes_nobody(pair: Pair) -> None:
    vcpu = pair.near.vcpus[0]
    port = pair.events.bind_ipi(pair.near, 0)
    pair.events.set_pending(pair.near, port)
    wait(vcpu, VcpuState.POLLING, port)
    pair.events.set_pending(pair.near, port)
    assert not is_awake(vcpu)


# --- life -----------------------------------------------------------------------------------------
def test_removed_domain_leaves_its_peer_unbound(pair: Pair) -> None:
    _, far_port = pair.connect()
    pair.events.remove_domain(pair.near.domid)
    assert pair.events.channel(pair.far, far_port).state is PortState.UNBOUND
    assert pair.near.domid not in pair.events.tables
