"""Virtual interrupts: who is told of what."""

from __future__ import annotations

from hypervisor.abi.width import Width
from hypervisor.abi.xen import ConsoleioCmd, HypercallNr, Virq
from hypervisor.control.host import SERIAL_RX_SIZE
from tests.support.callers import Guest, guests


def bound(guest: Guest, virq: Virq, vcpu: int = 0) -> int:
    return guest.host.events.bind_virq(guest.dom, virq, vcpu)


def is_raised(guest: Guest, port: int) -> bool:
    return guest.host.events.is_pending(guest.dom, port)


def test_each_vcpu_is_asked_what_it_does() -> None:
    with guests(Width.X86_64, nr_vcpus=3) as (guest,):
        ports = [bound(guest, Virq.DEBUG, vcpu) for vcpu in (0, 2)]
        guest.machine.domains[guest.dom.domid].send_debug_virq()
        assert [is_raised(guest, port) for port in ports] == [True, True]


def test_a_timer_is_one_vcpus_own() -> None:
    with guests(Width.X86_64, nr_vcpus=2) as (guest,):
        ports = [bound(guest, Virq.TIMER, vcpu) for vcpu in (0, 1)]
        guest.host.events.raise_virq(guest.dom, Virq.TIMER, 1)
        assert [is_raised(guest, port) for port in ports] == [False, True]


def test_a_global_virq_goes_where_its_port_was_moved() -> None:
    with guests(Width.X86_64, nr_vcpus=2) as (guest,):
        port = bound(guest, Virq.CONSOLE)
        guest.host.events.bind_vcpu(guest.dom, port, 1)
        guest.host.events.raise_virq(guest.dom, Virq.CONSOLE, 0)
        pending = [guest.host.memory.view[vcpu.vcpu_info_maddr] for vcpu in guest.dom.vcpus]
        assert pending == [0, 1]
        guest.host.events.close(guest.dom, port)
        assert bound(guest, Virq.CONSOLE) == port


def test_domain_0_that_listens_reads_what_is_typed_at_xens_console() -> None:
    with guests(Width.X86_64, privileged=True) as (dom0,):
        port = bound(dom0, Virq.CONSOLE)
        dom0.machine.domains[dom0.dom.domid].console.send(b"hello" + bytes(SERIAL_RX_SIZE))
        assert is_raised(dom0, port)
        assert dom0.call(HypercallNr.CONSOLE_IO, ConsoleioCmd.READ, 5, dom0.data) == 5
        assert dom0.get(5) == b"hello"
        rest = dom0.call(HypercallNr.CONSOLE_IO, ConsoleioCmd.READ, 1000, dom0.data)
        assert rest == SERIAL_RX_SIZE - 5


def test_one_that_does_not_has_its_ring() -> None:
    with guests(Width.X86_64, privileged=True) as (dom0,):
        dom0.machine.domains[dom0.dom.domid].console.send(b"hello")
        assert dom0.call(HypercallNr.CONSOLE_IO, ConsoleioCmd.READ, 5, dom0.data) == 0


def test_domain_0_hears_of_a_domains_end() -> None:
    with guests(Width.X86_64, Width.X86_32P, privileged=True) as (dom0, other):
        other.dom.privileged = False
        port = bound(dom0, Virq.DOM_EXC)
        dom0.host.shutdown(other.dom, 0)
        assert is_raised(dom0, port)
