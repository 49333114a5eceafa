"""From the hypercall instruction and back: registers, results, refusals, pieces, ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import DomainCrash
from hypervisor.abi.sched import SchedOp
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr
from hypervisor.api import Machine
from hypervisor.control.host import PREEMPTION_NS
from hypervisor.domain.domain import DomainState
from hypervisor.hypercalls import table
from hypervisor.hypercalls.dispatch import Dispatcher
from hypervisor.hypercalls.table import Hypercall, Preempted
from hypervisor.probes import Entry
from hypervisor.x86.flags import R8, R10, RAX, RBP, RBX, RCX, RDI, RDX, RSI
from tests.support.callers import BASE, Guest, nop_kernel

ARGUMENTS = {32: (RBX, RCX, RDX, RSI, RDI, RBP), 64: (RDI, RSI, RDX, R10, R8)}
SPARE = HypercallNr.ARCH_7
ENTRY = 0x5000


class Line:
    """A guest that is about to make a hypercall, seen at its registers."""

    def __init__(self, guest: Guest, traced: bool) -> None:
        self.guest = guest
        vmm = guest.machine.vmm
        self.dispatcher: Dispatcher = vmm.dispatcher
        self.entries: list[Entry] = []
        if traced:
            vmm.probes.watch_entries(self.entries.append)
        guest.enter()
        self.state = guest.host.current.state
        self.is_64 = guest.width.is_64

    def call(self, number: int, *args: int) -> int:
        """Execute the instruction; what is in the result register afterwards."""
        registers = ARGUMENTS[self.guest.width.bits]
        for register, value in zip(registers, args, strict=False):
            self.state.set_gpr(register, value)
        self.state.set_gpr(RAX, number)
        self.state.rip = ENTRY
        self.dispatcher.made()
        return self.state.gpr(RAX)

    def arguments(self, count: int) -> list[int]:
        return [self.state.gpr(r) for r in ARGUMENTS[self.guest.width.bits][:count]]


@pytest.fixture(params=["plain", "traced"])
def line(guest: Guest, request: pytest.FixtureRequest) -> Line:
    return Line(guest, request.param == "traced")


@pytest.fixture
def spare(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, Hypercall]]:
    """A number of which a test may make a hypercall, before its machine is made."""
    monkeypatch.delitem(table.ABSENT, SPARE)
    yield table.HYPERCALLS
    table.HYPERCALLS.pop(SPARE, None)


def test_result_replaces_the_number(line: Line) -> None:
    assert line.call(HypercallNr.XEN_VERSION, 0, 0) == 4 << 16 | 17


def test_refusal_is_a_negative_number_of_the_guests_width(line: Line) -> None:
    result = line.call(HypercallNr.SCHED_OP, 99, 0)
    assert result == (1 << line.guest.width.bits) - Errno.ENOSYS


@pytest.mark.parametrize("number", [11, 43, 63, 64, 1000, 0xFFFF_FFFF])
def test_number_that_no_hypercall_has_is_refused(line: Line, number: int) -> None:
    assert line.call(number) == (1 << line.guest.width.bits) - Errno.ENOSYS


def test_calls_are_counted_and_remembered(line: Line) -> None:
    before = line.guest.vcpu.calls.count
    line.call(HypercallNr.XEN_VERSION, 0, 0)
    line.call(63)
    assert line.guest.vcpu.calls.count == before + 2
    assert line.guest.vcpu.calls.latest()[-2:] == [(HypercallNr.XEN_VERSION, ENTRY), (63, ENTRY)]


def test_traced_call_tells_arguments_result_and_reason(guest: Guest) -> None:
    line = Line(guest, traced=True)
    line.call(HypercallNr.SCHED_OP, 99, 7)
    (entry,) = line.entries
    assert (entry.kind, entry.number, entry.args) == ("hypercall", HypercallNr.SCHED_OP, (99, 7))
    assert (entry.result, entry.why) == (-Errno.ENOSYS, "operation 99 is unknown")


@pytest.mark.parametrize("traced", [False, True])
def test_preempted_call_is_made_again_after_the_others(
    spare: dict[int, Hypercall], pair: tuple[Guest, Guest], traced: bool
) -> None:
    near, far = pair

    def goes_on(caller: object, first: int, second: int) -> int:
        raise Preempted(first + 1, second + 2)

    line = _line_with(near, spare, goes_on, traced)
    before = near.host.now_ns
    scheduler = near.host.scheduler
    scheduler.sleep(far.vcpu, 0)
    assert scheduler.pick(0) is not None
    scheduler.wake(far.vcpu, 0)
    assert line.call(SPARE, 10, 20) == SPARE
    assert line.state.rip == ENTRY - 2
    assert line.arguments(2) == [11, 22]
    chosen = scheduler.pick(near.host.now_ns)
    assert chosen is not None
    assert chosen[0] is far.vcpu
    assert near.host.now_ns == before + PREEMPTION_NS


@pytest.mark.parametrize("traced", [False, True])
def test_crash_ends_the_domain_and_nothing_else(
    spare: dict[int, Hypercall], pair: tuple[Guest, Guest], traced: bool
) -> None:
    near, far = pair

    def crashes(caller: object, first: int, second: int) -> int:
        raise DomainCrash("it had to end")

    line = _line_with(near, spare, crashes, traced)
    line.call(SPARE, 0, 0)
    assert near.dom.state is DomainState.CRASHED
    assert (near.dom.crash_report or "").startswith("(XEN) d1v0 it had to end\n")
    assert far.dom.state is DomainState.RUNNING


@pytest.mark.parametrize("traced", [False, True])
def test_mistake_of_ours_is_no_refusal(
    spare: dict[int, Hypercall], pair: tuple[Guest, Guest], traced: bool
) -> None:
    def mistaken(caller: object, first: int, second: int) -> int:
        raise KeyError(first)

    line = _line_with(pair[0], spare, mistaken, traced)
    line.call(SPARE, 7, 0)
    with pytest.raises(KeyError, match="7"):
        pair[0].machine.vmm.cpu.step()


def _line_with(guest: Guest, rows: dict[int, Hypercall], handler: object, traced: bool) -> Line:
    """The dispatcher binds its handlers when it is made, so make a new one."""
    rows[SPARE] = Hypercall(SPARE, 2, handler)  # type: ignore[arg-type]
    line = Line(guest, traced)
    vmm = guest.machine.vmm
    line.dispatcher = Dispatcher(vmm.dispatcher._caller, vmm.entry, vmm.probes)
    return line


def test_event_that_is_due_is_delivered_on_the_way_back(line: Line) -> None:
    guest = line.guest
    guest.vcpu.event_callback.cs = 0xE033 if line.is_64 else 0xE019
    guest.vcpu.event_callback.address = 0x7000
    guest.words[0], guest.words[1] = 1, 0
    line.call(HypercallNr.XEN_VERSION, 0, 0)
    assert line.state.rip == 0x7000
    assert guest.vcpu.stats.upcalls == 1
    assert guest.words[1] == 1


def test_event_that_cannot_be_delivered_ends_the_domain(line: Line) -> None:
    line.guest.words[0], line.guest.words[1] = 1, 0
    line.call(HypercallNr.XEN_VERSION, 0, 0)
    assert line.guest.dom.state is DomainState.CRASHED


def test_domain_that_ended_in_its_call_gets_no_event(line: Line) -> None:
    line.guest.words[0], line.guest.words[1] = 1, 0
    line.guest.put((0).to_bytes(4, "little"))
    line.call(HypercallNr.SCHED_OP, SchedOp.SHUTDOWN, line.guest.data)
    assert line.guest.dom.state is DomainState.SHUTDOWN


@pytest.mark.parametrize("traced", [False, True])
def test_int_82_is_a_hypercall_from_ring_1_alone(traced: bool) -> None:
    with Machine(memory_mib=16) as machine:
        if traced:
            machine.on_entry.append(lambda entry: None)
        dom = machine.create(nop_kernel(Width.X86_32P), memory_mib=4, width=Width.X86_32P)
        vmm = machine.vmm
        vcpu = vmm.host.domains[dom.domid].vcpus[0]
        vmm._switch(vmm.host.domains[dom.domid], vcpu)
        vmm.current.mem.write(BASE[Width.X86_32P], b"\xcd\x82")
        vmm.cpu.state.set_cpl(2)  # ring 3 may not even see the page
        machine.run(time_limit_ns=1000)
        # #GP(0x82 * 8 + 2), for which this guest has no handler
        assert "Unhandled: vec 13, #GP[0412]" in (dom.crash_report or "")
        assert dom.stats["hypercalls"] == 0
