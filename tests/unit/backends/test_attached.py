"""The backends of a machine's domains: whose pages they use, and what a guest can do about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from guests import guest_path
from hypervisor.abi.errors import XenError
from hypervisor.abi.xs_wire import XsType
from hypervisor.api import DomainHandle, Machine
from hypervisor.backends.console import LIMIT_BYTES
from hypervisor.backends.rings import (
    CONSOLE_IN,
    CONSOLE_OUT,
    XENSTORE_REPLIES,
    XENSTORE_REQUESTS,
    ByteStream,
    RingLayout,
)
from hypervisor.backends.xenstore.wire import Message
from hypervisor.domain.domain import Domain
from hypervisor.mm.audit import audit
from hypervisor.mm.frames import FrameType


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine(memory_mib=32) as made:
        yield made


@pytest.fixture
def handle(machine: Machine) -> Iterator[DomainHandle]:
    """A domain that has not run yet: the test does what its kernel would do."""
    made = machine.create(guest_path("hello", "x86_64"), name="quiet", memory_mib=8)
    yield made
    made.destroy()


@pytest.fixture
def dom(machine: Machine, handle: DomainHandle) -> Domain:
    return machine.vmm.host.domains[handle.domid]


def stream(machine: Machine, mfn: int, ring: RingLayout) -> ByteStream:
    return ByteStream(machine.vmm.memory.frame(mfn), ring)


def ask(machine: Machine, dom: Domain, kind: XsType, payload: bytes) -> Message:
    """One request through the ring and the event channel."""
    stream(machine, dom.store_mfn, XENSTORE_REQUESTS).write(Message(kind, 1, 0, payload).encode())
    machine.vmm.host.events.send(dom, dom.store_port)
    raw = stream(machine, dom.store_mfn, XENSTORE_REPLIES).read()
    return Message(int.from_bytes(raw[:4], "little"), 1, 0, raw[16:])


def is_pending(machine: Machine, dom: Domain, port: int) -> bool:
    return machine.vmm.host.events.is_pending(dom, port)


def consistent(machine: Machine) -> None:
    audit(machine.vmm.host.frames, machine.vmm.audit_subjects())


def test_a_request_through_the_ring_is_answered_in_the_same_hypercall(
    machine: Machine, dom: Domain
) -> None:
    assert ask(machine, dom, XsType.READ, b"name\0").payload == b"quiet"
    assert is_pending(machine, dom, dom.store_port)


def test_the_store_names_the_rings_of_the_domain(machine: Machine, dom: Domain) -> None:
    assert ask(machine, dom, XsType.READ, b"store/ring-ref\0").payload == b"%d" % dom.store_mfn
    assert ask(machine, dom, XsType.READ, b"console/ring-ref\0").payload == b"%d" % dom.console_mfn


def test_console_output_goes_to_its_listeners(
    machine: Machine, handle: DomainHandle, dom: Domain
) -> None:
    stream(machine, dom.console_mfn, CONSOLE_OUT).write(b"out\n")
    machine.vmm.host.events.send(dom, dom.console_port)
    assert handle.console.output == b"out\n"


def test_of_endless_output_the_end_is_kept(
    machine: Machine, handle: DomainHandle, dom: Domain
) -> None:
    ring = stream(machine, dom.console_mfn, CONSOLE_OUT)
    for number in range(2000):
        ring.write(b"%01999d\n" % number)
        machine.vmm.host.events.send(dom, dom.console_port)
        assert len(handle.console.output) <= 2 * LIMIT_BYTES
    assert len(handle.console.output) >= LIMIT_BYTES
    assert handle.console.output.endswith(b"%01999d\n" % 1999)


def test_console_input_waits_for_room(machine: Machine, handle: DomainHandle, dom: Domain) -> None:
    handle.console.send(b"x" * 1500)
    assert is_pending(machine, dom, dom.console_port)
    ring = stream(machine, dom.console_mfn, CONSOLE_IN)
    assert ring.read() == b"x" * 1024
    machine.vmm.host.events.send(dom, dom.console_port)
    assert ring.read() == b"x" * 476


def test_domains_hear_of_each_other_by_watches(machine: Machine, dom: Domain) -> None:
    neighbour = machine.create(guest_path("hello", "x86_32p"), name="other", memory_mib=8)
    other = machine.vmm.host.domains[neighbour.domid]
    path = b"/local/domain/%d/data\0" % other.domid
    assert ask(machine, other, XsType.SET_PERMS, b"data\0r%d\0" % other.domid).payload == b"OK\0"
    ask(machine, dom, XsType.WATCH, path + b"token\0")
    ask(machine, other, XsType.WRITE, b"data\0x")
    raw = stream(machine, dom.store_mfn, XENSTORE_REPLIES).read()
    assert raw[16:] == path + b"token\0"
    neighbour.destroy()


def test_a_domain_that_has_ended_is_told_nothing(machine: Machine, dom: Domain) -> None:
    home = b"/local/domain/%d/data\0" % dom.domid
    ask(machine, dom, XsType.WATCH, home + b"token\0")
    machine.vmm.host.shutdown(dom, 0)
    before = bytes(machine.vmm.memory.frame(dom.store_mfn))
    neighbour = machine.create(guest_path("hello", "x86_64"), name="other", memory_mib=8)
    machine.vmm.backends.store.write(home[:-1].decode(), "changed")
    neighbour.destroy()
    assert bytes(machine.vmm.memory.frame(dom.store_mfn)) == before


# --- the pages -----------------------------------------------------------------------------------
def test_ring_pages_are_held_as_long_as_they_are_used(machine: Machine, dom: Domain) -> None:
    assert dom.backend_frames == [dom.console_mfn, dom.store_mfn]
    consistent(machine)


@pytest.mark.parametrize("want", [FrameType.L1, FrameType.SEGDESC], ids=lambda want: want.name)
def test_a_ring_page_cannot_be_made_a_table(machine: Machine, dom: Domain, want: FrameType) -> None:
    with pytest.raises(XenError, match=rf"^mfn {dom.store_mfn:#x}"):
        dom.page_tables.get_page_and_type(dom.store_mfn, want)
    consistent(machine)


def test_a_ring_page_given_back_stays_the_domains_own(
    machine: Machine, handle: DomainHandle, dom: Domain
) -> None:
    frames = machine.vmm.host.frames
    mfn = dom.store_mfn
    frames.release_allocation(mfn)
    assert frames.owner[mfn] == dom.domid
    assert ask(machine, dom, XsType.READ, b"name\0").payload == b"quiet"
    consistent(machine)


def test_destruction_gives_everything_back(machine: Machine) -> None:
    frames, store = machine.vmm.host.frames, machine.vmm.backends.store
    first = machine.create(guest_path("hello", "x86_32"), name="first", memory_mib=8)
    first.destroy()  # what a width's domains share, Xen's page of the GDT, stays
    before, nodes = frames.nr_free, set(store.nodes)
    made = machine.create(guest_path("hello", "x86_32"), name="short", memory_mib=8)
    assert set(store.nodes) > nodes
    made.destroy()
    assert frames.nr_free == before
    assert set(store.nodes) == nodes
    consistent(machine)


# --- the ports -----------------------------------------------------------------------------------
def test_a_port_that_the_guest_has_closed_is_not_raised(
    machine: Machine, handle: DomainHandle, dom: Domain
) -> None:
    events = machine.vmm.host.events
    events.close(dom, dom.console_port)
    handle.console.send(b"x")
    assert not is_pending(machine, dom, dom.console_port)
    assert events.alloc_unbound(dom, 0) == dom.console_port
    handle.console.send(b"y")
    assert not is_pending(machine, dom, dom.console_port)


def test_input_for_a_domain_that_has_ended_is_lost(
    machine: Machine, handle: DomainHandle, dom: Domain
) -> None:
    machine.vmm.host.shutdown(dom, 0)
    handle.console.send(b"x")
    assert stream(machine, dom.console_mfn, CONSOLE_IN).read() == b""
