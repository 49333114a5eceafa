"""Life cycles: every operation of the control side, what each end leads to, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from guests import guest_path
from hypervisor.abi.event_channel import EvtchnAllocUnbound, EvtchnOp
from hypervisor.abi.sched import SchedOp, SchedShutdown
from hypervisor.abi.types import DOMID_FIRST_RESERVED
from hypervisor.abi.vcpu import Runstate
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr, Virq
from hypervisor.api import (
    Action,
    DomainHandle,
    DomainState,
    LifeCycleError,
    Machine,
    Policies,
    RunEnd,
    SchedParams,
    ShutdownReason,
)
from hypervisor.domain.domain import VcpuState
from hypervisor.events.ports import PortState
from hypervisor.events.timers import TimerKey, TimerKind
from hypervisor.mm.audit import audit
from hypervisor.mm.walk import walk
from hypervisor.x86.flags import RAX
from hypervisor.x86.paging import PAGE_SHIFT
from tests.support.callers import Guest, guests, nop_kernel

MSEC = 10**6


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory_mib=32) as made:
        yield made


def create(machine: Machine, **kwargs: object) -> DomainHandle:
    return machine.create(nop_kernel(Width.X86_64), memory_mib=4, **kwargs)  # type: ignore[arg-type]


def end_and_settle(machine: Machine, dom: DomainHandle, reason: int) -> None:
    dom.shutdown(reason)
    machine.run(time_limit_ns=machine.now_ns)


# --- creation -------------------------------------------------------------------------------------
def test_a_new_domain_is_not_taken_for_the_one_on_the_cpu(machine: Machine) -> None:
    """What the first does next is the first's doing, and ends nobody else."""
    first = machine.create(guest_path("hello", "x86_64"), memory_mib=4)
    machine.run(until=lambda: b"hello" in first.console.output)
    assert machine.vmm.host.running is machine.vmm.host.domains[first.domid].vcpus[0]
    second = create(machine)
    assert machine.vmm.current.dom.domid == first.domid
    second.pause()
    machine.run(time_limit_ns=machine.now_ns + 10 * MSEC)
    assert (first.state, second.state) == (DomainState.SHUTDOWN, DomainState.RUNNING)


# --- pause ----------------------------------------------------------------------------------------
def test_paused_twice_it_runs_when_unpaused_twice(machine: Machine) -> None:
    dom = create(machine)
    for change, is_blocked in (
        (dom.pause, True), (dom.pause, True), (dom.unpause, True), (dom.unpause, False),
    ):  # fmt: skip
        change()
        assert dom.is_blocked is is_blocked


def test_domain_starts_at_its_time(machine: Machine) -> None:
    dom = machine.create(guest_path("hello", "x86_64"), memory_mib=4, start_ns=70 * MSEC)
    assert machine.run(time_limit_ns=69 * MSEC) is RunEnd.TIME_LIMIT
    assert dom.console.output == b""
    assert machine.run() is RunEnd.ALL_STOPPED
    assert b"up 0.070" in dom.console.output


def test_domain_whose_start_has_passed_starts_at_once(machine: Machine) -> None:
    machine.vmm.cpu.clock.advance_to_ps(10**9)
    assert not create(machine, start_ns=1).is_blocked


# --- ends -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("reason", [*ShutdownReason, 77], ids=str)
def test_shutdown_gives_its_reason_and_keeps_the_memory(machine: Machine, reason: int) -> None:
    dom = create(machine)
    free = machine.vmm.host.frames.nr_free
    end_and_settle(machine, dom, reason)
    assert (dom.state, dom.shutdown_reason) == (DomainState.SHUTDOWN, reason)
    assert machine.vmm.host.frames.nr_free == free


@pytest.mark.parametrize("ran", [False, True], ids=["never ran", "on the CPU"])
def test_crash_is_reported_about_the_right_domain(machine: Machine, ran: bool) -> None:
    dom, other = create(machine, name="ours"), create(machine, name="other")
    if ran:
        machine.run(time_limit_ns=1000)
        assert machine.vmm.host.running is machine.vmm.host.domains[dom.domid].vcpus[0]
    dom.crash("was asked for by a test")
    assert dom.state is DomainState.CRASHED
    report = (dom.crash_report or "").splitlines()
    assert report[0] == "(XEN) d1v0 was asked for by a test"
    assert "domain_crash called for d1 'ours'" in report[1]
    assert other.state is DomainState.RUNNING
    machine.run(time_limit_ns=machine.now_ns + 1000)
    assert other.vcpus[0].rip > 0xFFFF_FFFF_8000_0000


@pytest.mark.parametrize(
    ("reason", "policy"),
    [
        (ShutdownReason.POWEROFF, "on_poweroff"),
        (ShutdownReason.REBOOT, "on_reboot"),
        (ShutdownReason.CRASH, "on_crash"),
        (ShutdownReason.WATCHDOG, "on_crash"),
    ],
)
def test_each_reason_has_its_policy(machine: Machine, reason: int, policy: str) -> None:
    dom = create(machine, policies=Policies(**{policy: Action.DESTROY}))
    end_and_settle(machine, dom, reason)
    assert (dom.state, machine.domains) == (DomainState.DESTROYED, {})
    kept = create(machine, policies=Policies(**{policy: Action.PRESERVE}))
    end_and_settle(machine, kept, reason)
    assert kept.state is DomainState.SHUTDOWN


@pytest.mark.parametrize("reason", [ShutdownReason.SUSPEND, ShutdownReason.SOFT_RESET, 77])
def test_other_reasons_are_for_somebody_to_decide(machine: Machine, reason: int) -> None:
    dom = create(machine, policies=Policies(Action.DESTROY, Action.DESTROY, Action.DESTROY))
    end_and_settle(machine, dom, reason)
    assert dom.state is DomainState.SHUTDOWN


def test_a_crash_restarts_it_if_so_wanted(machine: Machine) -> None:
    dom = create(machine, policies=Policies(on_crash=Action.RESTART))
    dom.crash()
    machine.run(time_limit_ns=machine.now_ns)
    assert dom.successor is not None
    assert dom.successor.state is DomainState.RUNNING
    assert dom.state is DomainState.DESTROYED


def test_a_domain_is_looked_after_though_another_one_ended_it(machine: Machine) -> None:
    dom0 = Guest(machine, Width.X86_64, privileged=True)
    dom = create(machine, policies=Policies(on_poweroff=Action.DESTROY))
    dom0.enter()
    machine.vmm.host.shutdown(machine.vmm.host.domains[dom.domid], ShutdownReason.POWEROFF)
    machine.run(time_limit_ns=machine.now_ns)
    assert dom.state is DomainState.DESTROYED


# --- restart --------------------------------------------------------------------------------------
def test_restart_is_a_new_domain_of_the_same_kind(machine: Machine) -> None:
    policies = Policies(on_reboot=Action.RESTART)
    dom = machine.create(
        guest_path("hello", "x86_32p"), memory_mib=5, cmdline="a=b", policies=policies
    )
    heard: list[bytes] = []
    dom.console.on_output(heard.append)
    told: list[tuple[DomainHandle, DomainHandle]] = []
    machine.on_restart.append(lambda old, new: told.append((old, new)))
    machine.run()
    dom.rename("renamed")
    new = dom.restart()
    assert (new.domid, new.name, new.width) == (dom.domid + 1, "renamed", Width.X86_32P)
    assert told == [(dom, new)]
    machine.run()
    assert heard.count(b'command line "a=b"\n') == 2
    assert new.console.output.count(b"hello from") == 1


def test_restart_that_cannot_be_is_told_in_the_log(machine: Machine) -> None:
    dom = create(machine, policies=Policies(on_reboot=Action.RESTART))
    machine.vmm.host.next_domid = DOMID_FIRST_RESERVED
    end_and_settle(machine, dom, ShutdownReason.REBOOT)
    assert (dom.state, dom.successor, machine.domains) == (DomainState.DESTROYED, None, {})
    assert b"d1 is not restarted: this machine has had 32751 domains" in machine.xen_log


# --- suspend --------------------------------------------------------------------------------------
@pytest.mark.parametrize(("cancelled", "result"), [(True, 1), (False, 0)])
@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_suspended_domain_goes_on_behind_its_call(
    width: Width, cancelled: bool, result: int
) -> None:
    with guests(width) as (guest,):
        machine, dom = guest.machine, guest.machine.domains[1]
        key = TimerKey(1, 0, TimerKind.SINGLESHOT)
        machine.vmm.host.set_timer(key, 50 * MSEC)
        suspend = SchedShutdown(ShutdownReason.SUSPEND)
        assert guest.op(HypercallNr.SCHED_OP, SchedOp.SHUTDOWN, suspend) == 0
        machine.vmm.cpu.state.set_gpr(RAX, 0)
        assert machine.run() is RunEnd.ALL_STOPPED
        dom.resume(cancelled=cancelled)
        assert (dom.state, dom.shutdown_reason) == (DomainState.RUNNING, None)
        assert machine.vmm.inspect(guest.vcpu, lambda state: state.gpr(RAX)) == result
        assert machine.vmm.host.timers.deadline(key) == 50 * MSEC
        before = dom.vcpus[0].rip
        machine.run(time_limit_ns=machine.now_ns + 100)
        assert dom.vcpus[0].rip > before


def test_a_domain_that_waited_still_waits_when_resumed(machine: Machine) -> None:
    dom = create(machine)
    host = machine.vmm.host
    vcpu = host.domains[dom.domid].vcpus[0]
    host.block(vcpu, VcpuState.BLOCKED)
    dom.shutdown(ShutdownReason.SUSPEND)
    dom.resume()
    assert (dom.is_blocked, vcpu.runstate.state) == (True, Runstate.BLOCKED)


# --- who hears of it ------------------------------------------------------------------------------
def test_domain_0_is_told_of_every_end() -> None:
    with guests(Width.X86_64, Width.X86_32P, privileged=True) as (near, far):
        far.dom.privileged = False
        events = near.host.events
        port = events.bind_virq(near.dom, Virq.DOM_EXC, 0)
        handle = near.machine.domains[far.dom.domid]
        ends: list[Callable[[], None]] = [handle.shutdown, handle.destroy]
        for end in ends:
            assert not events.is_pending(near.dom, port)
            end()
            assert events.is_pending(near.dom, port)
            events.bits.clear_pending(near.dom, port)


def test_a_peer_of_a_destroyed_domain_keeps_an_unbound_port() -> None:
    """As evtchn_close leaves it: open to a domain that will not come back, and told nothing."""
    with guests(Width.X86_64, Width.X86_32) as (near, far):
        events = near.host.events
        open_port = EvtchnAllocUnbound(near.dom.domid, far.dom.domid, 0)
        near.op(HypercallNr.EVENT_CHANNEL_OP, EvtchnOp.ALLOC_UNBOUND, open_port)
        events.bind_interdomain(far.dom, near.dom, open_port.port)
        events.bits.clear_pending(near.dom, open_port.port)
        near.machine.domains[far.dom.domid].destroy()
        channel = events.channel(near.dom, open_port.port)
        assert (channel.state, channel.remote_domid) == (PortState.UNBOUND, far.dom.domid)
        assert not events.is_pending(near.dom, open_port.port)
        events.send(near.dom, open_port.port)  # is lost, and no error


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_a_frame_that_a_peer_maps_stays_until_it_is_unmapped(width: Width) -> None:
    """As in Xen, where the rest of such a domain lives on as a zombie for as long."""
    with guests(width, width, privileged=True) as (near, far):
        host = near.host
        frame = far.spare_frame()
        far.put(b"left behind")
        vaddr = near.data
        near.enter()
        walked = walk(host.memory, near.dom.page_tables.mode, host.cpu.state.cr3, vaddr)
        entry_maddr = walked.steps[-1].entry_maddr
        own = near.dom.page_tables.read_entry(entry_maddr)
        foreign = frame << PAGE_SHIFT | own & 0xFFF
        near.dom.page_tables.update_entry(entry_maddr, foreign, owner=far.dom.domid)
        host.flush_tlb()
        near.machine.domains[far.dom.domid].destroy()
        assert near.get(11) == b"left behind"
        assert frame not in host.frames.free_list()
        assert host.frames.nr_held(far.dom.domid) == 1
        audit(host.frames, near.machine.vmm.audit_subjects())
        near.dom.page_tables.update_entry(entry_maddr, own, owner=near.dom.domid)
        assert frame in host.frames.free_list()
        assert not any(host.memory.frame(frame))
        audit(host.frames, near.machine.vmm.audit_subjects())


# --- limits and names -----------------------------------------------------------------------------
def test_renamed_in_the_store_too(machine: Machine) -> None:
    dom = create(machine, name="before")
    dom.rename("after")
    store = machine.vmm.backends.store
    assert dom.name == "after"
    assert store.read(f"/local/domain/{dom.domid}/name") == b"after"
    vm = store.read(f"/local/domain/{dom.domid}/vm")
    assert vm is not None
    assert store.read(f"{vm.decode()}/name") == b"after"


def test_weights_are_changed_while_it_runs(machine: Machine) -> None:
    dom = create(machine)
    machine.run(time_limit_ns=1000)
    dom.set_sched(SchedParams(weight=5))
    assert dom.sched.weight == 5


def test_max_memory_is_a_limit_and_takes_nothing_away(machine: Machine) -> None:
    dom = create(machine)
    plain = machine.vmm.host.domains[dom.domid]
    held = machine.vmm.host.frames.nr_held(dom.domid)
    dom.set_max_memory(2)
    assert plain.max_frames == 512
    assert machine.vmm.host.frames.nr_held(dom.domid) == held
    with pytest.raises(LifeCycleError, match=r"^d1 cannot have at most 0 MiB$"):
        dom.set_max_memory(0)


@pytest.mark.parametrize("name", ["", "a\nb"])
def test_a_name_is_something_to_print(machine: Machine, name: str) -> None:
    with pytest.raises(LifeCycleError, match="cannot be called"):
        create(machine).rename(name)


# --- what cannot be -------------------------------------------------------------------------------
OPERATIONS: dict[str, Callable[[DomainHandle], object]] = {
    "pause": DomainHandle.pause,
    "unpause": DomainHandle.unpause,
    "shutdown": DomainHandle.shutdown,
    "crash": DomainHandle.crash,
    "resume": DomainHandle.resume,
    "restart": DomainHandle.restart,
    "rename": lambda dom: dom.rename("x"),
    "sched": lambda dom: dom.sched,
    "set sched": lambda dom: dom.set_sched(SchedParams(weight=2)),
    "max memory": lambda dom: dom.set_max_memory(1),
    "time offset": lambda dom: dom.set_time_offset(1),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_can_be_done_to_a_destroyed_domain(machine: Machine, operation: str) -> None:
    dom = create(machine, name="gone")
    dom.destroy()
    dom.destroy()  # but this
    with pytest.raises(LifeCycleError, match=r"^d1 'gone' is destroyed, not "):
        OPERATIONS[operation](dom)


def test_a_running_domain_is_not_resumed(machine: Machine) -> None:
    with pytest.raises(LifeCycleError, match=r"^d1 'dom1' is running, not shutdown$"):
        create(machine).resume()
