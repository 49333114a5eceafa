"""Event channels against a model: any order of operations on the ports of two domains.

The model is what public/event_channel.h promises, with sets: who is bound to whom, which ports have
an event waiting, which are masked. After every step both must agree on every port, and each
interdomain channel must be known at both of its ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.abi.xen import Virq
from hypervisor.events.ports import PortState
from tests.support.callers import Guest, guests

#: Few ports and few vCPUs, so that operations meet.
PORTS: Final = st.sampled_from([1, 2, 3, 4, 1, 2, 3, 0, 60])
SIDES: Final = st.integers(0, 1)
VIRQS: Final = st.sampled_from([Virq.TIMER, Virq.CONSOLE, 25])
SHARED_BYTES: Final = 2048 + 1024  # of shared_info: vcpu_info and both bitmaps
VCPUS: Final = st.sampled_from([0, 1])


@dataclass
class Port:
    """What the model knows of a port in use."""

    kind: PortState
    peer: tuple[int, int] | None = None  # side and port
    accepts: int = -1  # UNBOUND: side, or -1 for nobody here
    virq: int = -1


@cache
def two_domains() -> list[Guest]:
    """Made once: their ports are closed and their bitmaps cleared before each example."""
    return guests(Width.X86_32P, Width.X86_64).__enter__()


class Ports(RuleBasedStateMachine):
    """Two domains of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = two_domains()
        self.events = self.sides[0].host.events
        self.ports: list[dict[int, Port]] = [{}, {}]
        self.pending: set[tuple[int, int]] = set()
        self.masked: set[tuple[int, int]] = set()
        for guest in self.sides:
            self.events.reset(guest.dom)
            guest.words[:SHARED_BYTES] = bytes(SHARED_BYTES)

    # --- helpers -------------------------------------------------------------------------------
    def free_port(self, side: int) -> int:
        return next(port for port in range(1, 65) if port not in self.ports[side])

    def attempt(self, errno: Errno | None, operation: Callable[[], int | None]) -> int:
        """Do it; it must be refused with `errno`, or succeed if that is None."""
        found, result = None, None
        try:
            result = operation()
        except XenError as refusal:
            found = refusal.errno
        assert found is errno
        return result or 0

    def happen(self, side: int, port: int) -> None:
        if port in self.ports[side]:
            self.pending.add((side, port))

    # --- operations ----------------------------------------------------------------------------
    @rule(side=SIDES, accepts=st.sampled_from([-1, 0, 1]))
    def alloc_unbound(self, side: int, accepts: int) -> None:
        domid = 999 if accepts < 0 else self.sides[accepts].dom.domid
        port = self.events.alloc_unbound(self.sides[side].dom, domid)
        assert port == self.free_port(side)
        self.ports[side][port] = Port(PortState.UNBOUND, accepts=accepts)

    @rule(side=SIDES, remote=SIDES, remote_port=PORTS)
    def bind_interdomain(self, side: int, remote: int, remote_port: int) -> None:
        far = self.ports[remote].get(remote_port)
        is_open = far is not None and far.kind is PortState.UNBOUND and far.accepts == side
        expected = self.free_port(side)
        port = self.attempt(
            None if is_open else Errno.EINVAL,
            lambda: self.events.bind_interdomain(
                self.sides[side].dom, self.sides[remote].dom, remote_port
            ),
        )
        if far is not None and is_open:
            assert port == expected
            self.ports[side][port] = Port(PortState.INTERDOMAIN, peer=(remote, remote_port))
            far.kind, far.peer = PortState.INTERDOMAIN, (side, port)
            self.happen(side, port)

    @rule(side=SIDES, remote=SIDES)
    def bind_what_is_open(self, side: int, remote: int) -> None:
        """The same where it must succeed, which is rare by chance."""
        for port, known in list(self.ports[remote].items()):
            if known.kind is PortState.UNBOUND and known.accepts == side:
                self.bind_interdomain(side, remote, port)

    @rule(side=SIDES, virq=VIRQS, vcpu=VCPUS)
    def bind_virq(self, side: int, virq: int, vcpu: int) -> None:
        bound = any(port.virq == virq for port in self.ports[side].values())
        errno = None
        if virq == 25 or (virq == Virq.CONSOLE and vcpu):
            errno = Errno.EINVAL
        elif vcpu:
            errno = Errno.ENOENT
        elif bound:
            errno = Errno.EEXIST
        expected = self.free_port(side)
        dom = self.sides[side].dom
        port = self.attempt(errno, lambda: self.events.bind_virq(dom, virq, vcpu))
        if errno is None:
            assert port == expected
            self.ports[side][port] = Port(PortState.VIRQ, virq=virq)

    @rule(side=SIDES, vcpu=VCPUS)
    def bind_ipi(self, side: int, vcpu: int) -> None:
        expected = self.free_port(side)
        errno = Errno.ENOENT if vcpu else None
        port = self.attempt(errno, lambda: self.events.bind_ipi(self.sides[side].dom, vcpu))
        if errno is None:
            assert port == expected
            self.ports[side][port] = Port(PortState.IPI)

    @rule(side=SIDES, port=PORTS)
    def close(self, side: int, port: int) -> None:
        known = self.ports[side].pop(port, None)
        errno = Errno.EINVAL if known is None else None
        self.attempt(errno, lambda: self.events.close(self.sides[side].dom, port))
        self.pending.discard((side, port))
        if known is not None and known.peer is not None:
            far_side, far_port = known.peer
            if (far := self.ports[far_side].get(far_port)) is not None:
                far.kind, far.peer, far.accepts = PortState.UNBOUND, None, side

    @rule(side=SIDES, port=PORTS)
    def send(self, side: int, port: int) -> None:
        known = self.ports[side].get(port)
        refused = known is None or known.kind is PortState.VIRQ
        errno = Errno.EINVAL if refused else None
        self.attempt(errno, lambda: self.events.send(self.sides[side].dom, port))
        if known is not None and known.peer is not None:
            self.happen(*known.peer)
        elif known is not None and known.kind is PortState.IPI:
            self.happen(side, port)

    @rule(side=SIDES, virq=st.sampled_from([Virq.TIMER, Virq.CONSOLE]))
    def raise_virq(self, side: int, virq: int) -> None:
        self.events.raise_virq(self.sides[side].dom, virq, 0)
        for port, known in self.ports[side].items():
            if known.virq == virq:
                self.happen(side, port)

    @rule(side=SIDES, port=PORTS)
    def mask(self, side: int, port: int) -> None:
        guest = self.sides[side]
        offset = 2048 + guest.width.bits**2 // 8 + port // 8
        guest.words[offset] |= 1 << port % 8
        self.masked.add((side, port))

    @rule(side=SIDES, port=PORTS)
    def unmask(self, side: int, port: int) -> None:
        self.attempt(None, lambda: self.events.unmask(self.sides[side].dom, port))
        if port in self.ports[side]:
            self.masked.discard((side, port))

    @rule(side=SIDES)
    def take_events(self, side: int) -> None:
        """The guest's upcall: it must find every event that is not masked."""
        guest = self.sides[side]
        due = {p for s, p in self.pending if s == side and (s, p) not in self.masked}
        assert bool(due) <= bool(guest.words[0])
        guest.words[: 2 * guest.width.word_bytes] = bytes(2 * guest.width.word_bytes)
        for port in due:
            self.events.bits.clear_pending(guest.dom, port)
            self.pending.discard((side, port))

    @rule(side=SIDES)
    def reset(self, side: int) -> None:
        for port in list(self.ports[side]):
            self.close(side, port)
        self.events.reset(self.sides[side].dom)

    # --- what always holds ---------------------------------------------------------------------
    @invariant()
    def ports_are_what_the_model_says(self) -> None:
        for guest, ports in zip(self.sides, self.ports, strict=True):
            channels = self.events.tables[guest.dom.domid].channels
            kinds = {port: c.state for port, c in enumerate(channels) if c.is_usable}
            assert kinds == {port: known.kind for port, known in ports.items()}

    @invariant()
    def both_ends_know_each_other(self) -> None:
        for domid, table in self.events.tables.items():
            for port, channel in enumerate(table.channels):
                if channel.state is PortState.INTERDOMAIN:
                    far = self.events.tables[channel.remote_domid].channels[channel.remote_port]
                    assert far.state is PortState.INTERDOMAIN
                    assert (far.remote_domid, far.remote_port) == (domid, port)

    @invariant()
    def events_are_pending_where_the_model_says(self) -> None:
        for side, guest in enumerate(self.sides):
            found = {p for p in range(64) if self.events.bits.is_pending(guest.dom, p)}
            assert found == {port for at, port in self.pending if at == side}

    @invariant()
    def a_due_event_has_an_upcall(self) -> None:
        for side, guest in enumerate(self.sides):
            due = any(at == side and (at, p) not in self.masked for at, p in self.pending)
            assert bool(guest.words[0]) >= due


Ports.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, derandomize=True
)
TestPorts = Ports.TestCase
