"""vcpu_op: the boot vCPU, its timers, and where its vcpu_info lies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.sched import ShutdownReason
from hypervisor.abi.vcpu import (
    VCPU_SSHOTTMR_FUTURE,
    VcpuOp,
    VcpuRegisterVcpuInfo,
    VcpuSetPeriodicTimer,
    VcpuSetSingleshotTimer,
)
from hypervisor.abi.xen import HypercallNr, Virq
from hypervisor.domain.domain import VCPU_INFO_BYTES, DomainState, VcpuState
from hypervisor.events.timers import TimerKey, TimerKind
from hypervisor.mm.frames import FrameType
from tests.support.callers import Guest, refused

MSEC = 1_000_000


def vcpu_op(guest: Guest, operation: int, argument: object = None, vcpu: int = 0) -> int | None:
    return guest.op(HypercallNr.VCPU_OP, operation, argument, vcpu)


def deadline(guest: Guest, kind: TimerKind) -> int | None:
    return guest.host.timers.deadline(TimerKey(guest.dom.domid, 0, kind))


def pass_time(guest: Guest, until_ns: int) -> None:
    guest.host.cpu.clock.advance_to_ps(until_ns * 1000)
    guest.host.fire_due_timers()


# --- which there are ------------------------------------------------------------------------------
def test_boot_vcpu_is_up(guest: Guest) -> None:
    assert vcpu_op(guest, VcpuOp.IS_UP) == 1
    assert vcpu_op(guest, VcpuOp.UP) == 0


@pytest.mark.parametrize("vcpu", [1, 77, 0xFFFF_FFFF])
@pytest.mark.parametrize("operation", [VcpuOp.IS_UP, VcpuOp.UP, 99])
def test_missing_vcpu_is_found_out_first(guest: Guest, operation: int, vcpu: int) -> None:
    with refused(Errno.ENOENT, rf"^d1 has no vCPU {vcpu}$"):
        vcpu_op(guest, operation, None, vcpu)


def test_last_vcpu_that_goes_down_powers_off(guest: Guest) -> None:
    vcpu_op(guest, VcpuOp.DOWN)
    assert guest.dom.state is DomainState.SHUTDOWN
    assert guest.dom.shutdown_reason == ShutdownReason.POWEROFF


def test_vcpu_that_was_never_initialised_does_not_come_up(guest: Guest) -> None:
    guest.enter()
    guest.vcpu.saved = b""
    with refused(Errno.EINVAL, "^d1v0 was never initialised$"):
        vcpu_op(guest, VcpuOp.UP)


@pytest.mark.parametrize(
    ("operation", "errno"),
    [(VcpuOp.INITIALISE, Errno.EFAULT), (VcpuOp.GET_PHYSID, Errno.EINVAL), (99, Errno.ENOSYS)],
)
def test_what_is_not_there_is_refused(guest: Guest, operation: int, errno: Errno) -> None:
    with refused(errno, "."):
        vcpu_op(guest, operation)


# --- timers ---------------------------------------------------------------------------------------
def test_single_shot_timer_raises_virq_timer_once(guest: Guest) -> None:
    port = guest.host.events.bind_virq(guest.dom, Virq.TIMER, 0)
    vcpu_op(guest, VcpuOp.SET_SINGLESHOT_TIMER, VcpuSetSingleshotTimer(3 * MSEC, 0))
    pass_time(guest, 3 * MSEC)
    assert guest.host.events.is_pending(guest.dom, port)
    assert deadline(guest, TimerKind.SINGLESHOT) is None


def test_both_single_shot_timers_are_one(guest: Guest) -> None:
    vcpu_op(guest, VcpuOp.SET_SINGLESHOT_TIMER, VcpuSetSingleshotTimer(3 * MSEC, 0))
    guest.call(HypercallNr.SET_TIMER_OP, 9 * MSEC, 0)
    assert deadline(guest, TimerKind.SINGLESHOT) == 9 * MSEC
    vcpu_op(guest, VcpuOp.STOP_SINGLESHOT_TIMER)
    assert deadline(guest, TimerKind.SINGLESHOT) is None


@pytest.mark.parametrize("flags", [0, VCPU_SSHOTTMR_FUTURE])
@pytest.mark.parametrize("timeout", [1, 1 << 63])
def test_time_that_has_passed_fires_at_once(guest: Guest, timeout: int, flags: int) -> None:
    guest.host.cpu.clock.advance_to_ps(5 * MSEC * 1000)
    vcpu_op(guest, VcpuOp.SET_SINGLESHOT_TIMER, VcpuSetSingleshotTimer(timeout, flags))
    guest.host.fire_due_timers()
    assert deadline(guest, TimerKind.SINGLESHOT) is None


def test_periodic_timer_raises_virq_timer_again_and_again(guest: Guest) -> None:
    port = guest.host.events.bind_virq(guest.dom, Virq.TIMER, 0)
    vcpu_op(guest, VcpuOp.SET_PERIODIC_TIMER, VcpuSetPeriodicTimer(2 * MSEC))
    for tick in (2, 4, 6):
        pass_time(guest, tick * MSEC)
        assert guest.host.events.is_pending(guest.dom, port)
        guest.host.events.bits.clear_pending(guest.dom, port)
    vcpu_op(guest, VcpuOp.STOP_PERIODIC_TIMER)
    assert deadline(guest, TimerKind.PERIODIC) is None


def test_period_counts_from_the_last_tick(guest: Guest) -> None:
    port = guest.host.events.bind_virq(guest.dom, Virq.TIMER, 0)
    pass_time(guest, 3 * MSEC)
    vcpu_op(guest, VcpuOp.SET_PERIODIC_TIMER, VcpuSetPeriodicTimer(2 * MSEC))
    assert guest.host.events.is_pending(guest.dom, port)
    assert deadline(guest, TimerKind.PERIODIC) == 5 * MSEC


def test_periodic_timer_stops_with_its_vcpu_and_makes_up_for_it(guest: Guest) -> None:
    port = guest.host.events.bind_virq(guest.dom, Virq.TIMER, 0)
    vcpu_op(guest, VcpuOp.SET_PERIODIC_TIMER, VcpuSetPeriodicTimer(2 * MSEC))
    guest.host.end_turn(guest.vcpu)
    pass_time(guest, 9 * MSEC)
    assert not guest.host.events.is_pending(guest.dom, port)
    guest.host.begin_turn(guest.vcpu)
    assert guest.host.events.is_pending(guest.dom, port)
    assert deadline(guest, TimerKind.PERIODIC) == 11 * MSEC


def test_domain_starts_with_a_100_hz_tick(guest: Guest) -> None:
    assert guest.vcpu.periodic_ns == 10 * MSEC


@pytest.mark.parametrize("period", [0, MSEC - 1, 1 << 62, (1 << 64) - 1])
def test_period_has_bounds(guest: Guest, period: int) -> None:
    with refused(Errno.EINVAL, rf"^a period of {period} ns$"):
        vcpu_op(guest, VcpuOp.SET_PERIODIC_TIMER, VcpuSetPeriodicTimer(period))


# --- vcpu_info ------------------------------------------------------------------------------------
def register(guest: Guest, mfn: int, offset: int = 0) -> None:
    vcpu_op(guest, VcpuOp.REGISTER_VCPU_INFO, VcpuRegisterVcpuInfo(mfn, offset, 0))


def test_registered_vcpu_info_has_what_was_there_and_every_port_to_look_at(guest: Guest) -> None:
    mfn = guest.spare_frame()
    guest.words[1], guest.words[40] = 1, 0x77
    register(guest, mfn, 0x100)
    info = guest.host.memory.frame(mfn)[0x100 : 0x100 + VCPU_INFO_BYTES]
    size = guest.width.word_bytes
    assert (info[0], info[1], info[40]) == (1, 1, 0x77)
    assert bytes(info[size : 2 * size]) == b"\xff" * size


def test_registered_frame_stays_writable_memory(guest: Guest) -> None:
    mfn = guest.spare_frame()
    before = guest.host.frames.type_count[mfn]
    register(guest, mfn)
    assert guest.host.frames.type[mfn] == FrameType.WRITABLE
    assert guest.host.frames.type_count[mfn] == before + 1


def test_vcpu_info_is_registered_once(guest: Guest) -> None:
    register(guest, guest.spare_frame())
    with refused(Errno.EINVAL, "^d1v0 has registered its vcpu_info already$"):
        register(guest, guest.spare_frame(), 64)


@pytest.mark.parametrize("offset", [1, 4095, 4096 - VCPU_INFO_BYTES + 8, 0xFFFF_FFFF])
def test_vcpu_info_lies_within_a_page_on_words(guest: Guest, offset: int) -> None:
    with refused(Errno.ENXIO, rf"^a vcpu_info cannot lie at offset {offset:#x}$"):
        register(guest, guest.spare_frame(), offset)


@pytest.mark.parametrize(
    "frame",
    [
        lambda guest: guest.vcpu.root_mfn,
        lambda guest: 1 << 40,
        lambda guest: (1 << 64) - 1,
        lambda guest: 0,
    ],
    ids=["a page table", "far away", "at the end of numbers", "Xen's"],
)
def test_frame_that_is_not_the_guests_to_write_is_refused(
    guest: Guest, frame: Callable[[Guest], int]
) -> None:
    with refused(Errno.EINVAL, "^mfn 0x"):
        register(guest, frame(guest))
    assert not guest.vcpu.vcpu_info_registered
    assert guest.vcpu.state is VcpuState.RUNNABLE
