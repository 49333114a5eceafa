"""sched_op and set_timer_op: waiting, ending, and being woken."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.sched import (
    SchedOp,
    SchedPoll,
    SchedRemoteShutdown,
    SchedShutdown,
    SchedWatchdog,
    ShutdownReason,
)
from hypervisor.abi.types import DOMID_SELF
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr
from hypervisor.domain.domain import DomainState, VcpuState
from hypervisor.events.timers import TimerKey, TimerKind
from tests.support.callers import UNMAPPED, Guest, refused
from tests.support.callers import hole as hole_of

MSEC = 1_000_000
FAR_PORT = 60


def sched(guest: Guest, operation: int, argument: object = None) -> int | None:
    return guest.op(HypercallNr.SCHED_OP, operation, argument)


def deadline(guest: Guest, kind: TimerKind) -> int | None:
    return guest.host.timers.deadline(TimerKey(guest.dom.domid, 0, kind))


def poll(guest: Guest, *ports: int, timeout: int = 0) -> None:
    at = guest.put(b"".join(port.to_bytes(4, "little") for port in ports), 256)
    assert sched(guest, SchedOp.POLL, SchedPoll(at, len(ports), timeout)) == 0


def bind_ipi(guest: Guest) -> int:
    port = guest.host.events.bind_ipi(guest.dom, 0)
    guest.mask_port(port)
    return port


def state_of(guest: Guest) -> VcpuState:
    return guest.vcpu.state


# --- block, yield ---------------------------------------------------------------------------------
def test_block_unmasks_and_sleeps(guest: Guest) -> None:
    assert sched(guest, SchedOp.BLOCK) == 0
    assert not guest.enter().current.events_masked
    assert state_of(guest) is VcpuState.BLOCKED


def test_block_returns_at_once_when_an_upcall_is_pending(guest: Guest) -> None:
    guest.words[0] = 1
    sched(guest, SchedOp.BLOCK)
    assert state_of(guest) is VcpuState.RUNNABLE


def test_yield_lets_the_other_domain_run(pair: tuple[Guest, Guest]) -> None:
    near, far = pair
    scheduler = near.host.scheduler
    scheduler.sleep(far.vcpu, 0)
    assert scheduler.pick(0) is not None
    scheduler.wake(far.vcpu, 0)
    sched(near, SchedOp.YIELD)
    chosen = scheduler.pick(near.host.now_ns)
    assert chosen is not None
    assert chosen[0] is far.vcpu


# --- poll -----------------------------------------------------------------------------------------
def test_poll_waits_for_its_port_and_leaves_the_mask_alone(guest: Guest) -> None:
    port = bind_ipi(guest)
    poll(guest, port)
    assert (state_of(guest), guest.vcpu.poll_ports) == (VcpuState.POLLING, (port,))
    assert guest.enter().current.events_masked
    guest.host.events.set_pending(guest.dom, port)
    assert state_of(guest) is VcpuState.RUNNABLE


def test_poll_of_several_ports_ends_with_any_event(guest: Guest) -> None:
    first, second, other = bind_ipi(guest), bind_ipi(guest), bind_ipi(guest)
    poll(guest, first, second)
    guest.host.events.set_pending(guest.dom, other)
    assert state_of(guest) is VcpuState.RUNNABLE


def test_poll_of_a_pending_port_returns_at_once(guest: Guest) -> None:
    port = bind_ipi(guest)
    guest.host.events.set_pending(guest.dom, port)
    poll(guest, port)
    assert state_of(guest) is VcpuState.RUNNABLE


def test_pending_port_hides_what_is_wrong_behind_it(guest: Guest) -> None:
    port = bind_ipi(guest)
    guest.host.events.set_pending(guest.dom, port)
    poll(guest, port, 9999)
    with refused(Errno.EINVAL, "^port 9999 of d1 does not exist$"):
        poll(guest, 9999, port)


def test_poll_with_an_upcall_due_returns_at_once(guest: Guest) -> None:
    guest.words[0], guest.words[1] = 1, 0
    poll(guest, bind_ipi(guest))
    assert state_of(guest) is VcpuState.RUNNABLE


def test_poll_may_name_a_port_that_is_free(guest: Guest) -> None:
    poll(guest, FAR_PORT)
    assert state_of(guest) is VcpuState.POLLING


def test_poll_ends_at_its_timeout(guest: Guest) -> None:
    poll(guest, bind_ipi(guest), timeout=5 * MSEC)
    assert deadline(guest, TimerKind.POLL) == 5 * MSEC
    guest.host.cpu.clock.advance_to_ps(5 * MSEC * 1000)
    guest.host.fire_due_timers()
    assert state_of(guest) is VcpuState.RUNNABLE


def test_event_ends_a_polls_timeout(guest: Guest) -> None:
    port = bind_ipi(guest)
    poll(guest, port, timeout=5 * MSEC)
    guest.host.events.set_pending(guest.dom, port)
    assert deadline(guest, TimerKind.POLL) is None


def test_poll_without_ports_or_time_waits_for_any_event(guest: Guest) -> None:
    poll(guest)
    assert state_of(guest) is VcpuState.POLLING
    guest.host.events.set_pending(guest.dom, bind_ipi(guest))
    assert state_of(guest) is VcpuState.RUNNABLE


@pytest.mark.parametrize("timeout", [1, 1 << 63, (1 << 64) - 1])
def test_time_that_has_passed_ends_a_poll_soon(guest: Guest, timeout: int) -> None:
    poll(guest, bind_ipi(guest), timeout=timeout)
    guest.host.cpu.clock.advance_to_ps(1000)
    guest.host.fire_due_timers()
    assert state_of(guest) is VcpuState.RUNNABLE


@pytest.mark.parametrize("count", [129, 0xFFFF_FFFF])
def test_poll_takes_128_ports(guest: Guest, count: int) -> None:
    with refused(Errno.EINVAL, rf"^{count} ports to poll, at most 128$"):
        sched(guest, SchedOp.POLL, SchedPoll(UNMAPPED, count, 0))


def test_ports_that_cannot_be_read_are_a_fault(guest: Guest) -> None:
    with refused(Errno.EFAULT, "^cannot read at 0x1000: it is not mapped$"):
        sched(guest, SchedOp.POLL, SchedPoll(UNMAPPED, 1, 0))
    with refused(Errno.EFAULT, "are in Xen's region$"):
        sched(guest, SchedOp.POLL, SchedPoll(hole_of(guest.width), 128, 0))
    assert state_of(guest) is VcpuState.RUNNABLE


# --- ends -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("reason", ShutdownReason)
def test_shutdown_ends_the_domain_for_its_reason(guest: Guest, reason: int) -> None:
    sched(guest, SchedOp.SHUTDOWN, SchedShutdown(reason))
    assert (guest.dom.state, guest.dom.shutdown_reason) == (DomainState.SHUTDOWN, reason)
    assert guest.host.scheduler.pick(0) is None


def test_reason_is_a_byte(guest: Guest) -> None:
    sched(guest, SchedOp.SHUTDOWN, SchedShutdown(0x1_0003))
    assert guest.dom.shutdown_reason == ShutdownReason.CRASH


def test_reason_announced_first_counts(guest: Guest) -> None:
    sched(guest, SchedOp.SHUTDOWN_CODE, SchedShutdown(ShutdownReason.CRASH))
    sched(guest, SchedOp.SHUTDOWN_CODE, SchedShutdown(ShutdownReason.SUSPEND))
    sched(guest, SchedOp.SHUTDOWN, SchedShutdown(ShutdownReason.POWEROFF))
    assert guest.dom.shutdown_reason == ShutdownReason.CRASH


def test_first_form_of_the_hypercall_has_its_reason_in_a_register(guest: Guest) -> None:
    guest.call(HypercallNr.SCHED_OP_COMPAT, SchedOp.SHUTDOWN, ShutdownReason.REBOOT)
    assert guest.dom.shutdown_reason == ShutdownReason.REBOOT


def test_first_form_has_no_poll(guest: Guest) -> None:
    with refused(Errno.ENOSYS, "^sched_op_compat operation 3 is unknown$"):
        guest.call(HypercallNr.SCHED_OP_COMPAT, SchedOp.POLL, 0)


def test_privileged_domain_ends_another(dom0: tuple[Guest, Guest]) -> None:
    near, far = dom0
    argument = SchedRemoteShutdown(far.dom.domid, ShutdownReason.CRASH)
    sched(near, SchedOp.REMOTE_SHUTDOWN, argument)
    assert (near.dom.state, far.dom.state) == (DomainState.RUNNING, DomainState.SHUTDOWN)
    assert far.dom.shutdown_reason == ShutdownReason.CRASH


def test_domain_that_has_ended_does_not_end_again(dom0: tuple[Guest, Guest]) -> None:
    near, far = dom0
    for reason in (ShutdownReason.POWEROFF, ShutdownReason.CRASH):
        sched(near, SchedOp.REMOTE_SHUTDOWN, SchedRemoteShutdown(far.dom.domid, reason))
    assert far.dom.shutdown_reason == ShutdownReason.POWEROFF


def test_remote_shutdown_needs_privilege_and_somebody(pair: tuple[Guest, Guest]) -> None:
    near, far = pair
    for domid in (near.dom.domid, far.dom.domid):
        with refused(Errno.EPERM, rf"^d1 may not end d{domid}$"):
            sched(near, SchedOp.REMOTE_SHUTDOWN, SchedRemoteShutdown(domid, 0))
    for domid in (999, DOMID_SELF):
        with refused(Errno.ESRCH, rf"^there is no domain {domid:#x}$"):
            sched(near, SchedOp.REMOTE_SHUTDOWN, SchedRemoteShutdown(domid, 0))


@pytest.mark.parametrize(
    ("operation", "errno"),
    [(SchedOp.PIN_OVERRIDE, Errno.EPERM), (99, Errno.ENOSYS)],
)
def test_what_is_not_there_is_refused(guest: Guest, operation: int, errno: Errno) -> None:
    with refused(errno, "."):
        sched(guest, operation)


# --- set_timer_op ---------------------------------------------------------------------------------
def set_timer(guest: Guest, deadline_ns: int) -> None:
    if guest.width is Width.X86_64:
        halves = (deadline_ns, 0xDEAD)  # the second argument is a 32-bit caller's
    else:
        halves = (deadline_ns & 0xFFFF_FFFF, deadline_ns >> 32)
    assert guest.call(HypercallNr.SET_TIMER_OP, *halves) == 0


@pytest.mark.parametrize("deadline_ns", [5 * MSEC, 5 << 32, 1], ids=["soon", "64 bits", "past"])
def test_timer_is_set_to_an_absolute_time(guest: Guest, deadline_ns: int) -> None:
    set_timer(guest, deadline_ns)
    assert deadline(guest, TimerKind.SINGLESHOT) == deadline_ns


def test_time_0_cancels_the_timer(guest: Guest) -> None:
    set_timer(guest, 5 * MSEC)
    set_timer(guest, 0)
    assert deadline(guest, TimerKind.SINGLESHOT) is None


@pytest.mark.parametrize("deadline_ns", [1 << 50, 1 << 62, 1 << 63, (1 << 64) - 1])
def test_wrapped_time_fires_after_100_ms(guest: Guest, deadline_ns: int) -> None:
    set_timer(guest, deadline_ns)
    assert deadline(guest, TimerKind.SINGLESHOT) == 100 * MSEC


def test_time_just_below_13_days_is_believed(guest: Guest) -> None:
    set_timer(guest, (1 << 50) - 1)
    assert deadline(guest, TimerKind.SINGLESHOT) == (1 << 50) - 1


# --- watchdogs ------------------------------------------------------------------------------------
def set_watchdog(guest: Guest, number: int, seconds: int) -> int | None:
    return sched(guest, SchedOp.WATCHDOG, SchedWatchdog(number, seconds))


def barks(guest: Guest, number: int) -> int | None:
    key = TimerKey(guest.dom.domid, number - 1, TimerKind.WATCHDOG)
    return guest.host.timers.deadline(key)


def pass_time(guest: Guest, now_ns: int) -> None:
    guest.host.cpu.clock.advance_to_ps(now_ns * 1000)
    guest.host.fire_due_timers()


def test_a_domain_has_two_watchdogs(guest: Guest) -> None:
    assert [set_watchdog(guest, 0, seconds) for seconds in (3, 5)] == [1, 2]
    assert [barks(guest, number) for number in (1, 2)] == [3000 * MSEC, 5000 * MSEC]
    with refused(Errno.ENOSPC, "^d1 uses its two watchdogs already$"):
        set_watchdog(guest, 0, 1)


def test_a_watchdog_that_is_fed_does_not_bark(guest: Guest) -> None:
    set_watchdog(guest, 0, 3)
    pass_time(guest, 2000 * MSEC)
    assert set_watchdog(guest, 1, 3) == 0
    pass_time(guest, 4999 * MSEC)
    assert guest.dom.state is DomainState.RUNNING
    pass_time(guest, 5000 * MSEC)
    assert guest.dom.shutdown_reason == ShutdownReason.WATCHDOG
    assert b"(XEN) Watchdog timer fired for domain 1\n" in guest.host.log.text


def test_a_watchdog_given_back_does_not_bark_and_can_be_had_again(guest: Guest) -> None:
    set_watchdog(guest, 0, 3)
    assert set_watchdog(guest, 1, 0) == 0
    assert barks(guest, 1) is None
    assert set_watchdog(guest, 0, 4) == 1


@pytest.mark.parametrize("number", [1, 2, 3, 0xFFFF_FFFF])
def test_a_watchdog_that_is_not_in_use_is_refused(guest: Guest, number: int) -> None:
    with refused(Errno.EINVAL, rf"^d1 uses no watchdog {number}$"):
        set_watchdog(guest, number, 1)


def test_a_domain_that_has_ended_is_not_ended_by_its_watchdog(guest: Guest) -> None:
    set_watchdog(guest, 0, 1)
    sched(guest, SchedOp.SHUTDOWN, SchedShutdown(ShutdownReason.SUSPEND))
    pass_time(guest, 2000 * MSEC)
    assert guest.dom.shutdown_reason == ShutdownReason.SUSPEND
