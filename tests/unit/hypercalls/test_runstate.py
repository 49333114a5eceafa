"""Run-state accounts and the areas that guests read them and the time from."""

from __future__ import annotations

import struct

from hypervisor.abi.errno import Errno
from hypervisor.abi.layout import layout
from hypervisor.abi.vcpu import (
    Runstate,
    VcpuOp,
    VcpuRegisterRunstateMemoryArea,
    VcpuRegisterTimeMemoryArea,
    VcpuRunstateInfo,
)
from hypervisor.abi.xen import HypercallNr
from hypervisor.domain.domain import VcpuState
from tests.support.callers import UNMAPPED, Guest, hole, refused

AREA = 0x200
_TIME = struct.Struct("<IIQQIbB")


def ask(guest: Guest) -> VcpuRunstateInfo:
    guest.call(HypercallNr.VCPU_OP, VcpuOp.GET_RUNSTATE_INFO, 0, guest.data)
    return read(guest, 0)


def read(guest: Guest, offset: int) -> VcpuRunstateInfo:
    shape = layout(VcpuRunstateInfo, guest.width)
    info: VcpuRunstateInfo = shape.unpack_from(guest.get(shape.size, offset))
    return info


def register(guest: Guest, vaddr: int) -> None:
    argument = VcpuRegisterRunstateMemoryArea(vaddr)
    guest.op(HypercallNr.VCPU_OP, VcpuOp.REGISTER_RUNSTATE_MEMORY_AREA, argument, 0)


def at(guest: Guest, now_ns: int) -> None:
    guest.host.cpu.clock.advance_to_ps(now_ns * 1000)


def test_each_state_gets_its_time(guest: Guest) -> None:
    host, vcpu = guest.host, guest.vcpu
    guest.enter()
    start = host.now_ns
    before = ask(guest)
    host.begin_turn(vcpu)
    at(guest, start + 100)
    host.block(vcpu, VcpuState.BLOCKED)
    host.end_turn(vcpu)
    at(guest, start + 1_100)
    host.wake(vcpu)
    at(guest, start + 1_130)
    host.begin_turn(vcpu)
    at(guest, start + 1_135)
    after = ask(guest)
    passed = [new - old for new, old in zip(after.time, before.time, strict=True)]
    assert passed == [105, 30, 1_000, 0]
    assert (after.state, after.state_entry_time) == (Runstate.RUNNING, start + 1_130)


def test_all_time_is_booked(guest: Guest) -> None:
    guest.enter()
    at(guest, 12_345)
    assert sum(ask(guest).time) == guest.host.now_ns


def test_paused_vcpu_is_offline(guest: Guest) -> None:
    host = guest.host
    states = []
    for change in (host.pause, host.unpause):
        change(guest.dom)
        states.append(guest.vcpu.runstate.state)
    assert states == [Runstate.OFFLINE, Runstate.RUNNABLE]


def test_area_is_filled_at_once_and_when_the_vcpu_runs(guest: Guest) -> None:
    host, vcpu = guest.host, guest.vcpu
    guest.enter()
    host.begin_turn(vcpu)
    register(guest, guest.data + AREA)
    first = read(guest, AREA)
    assert first.state == Runstate.RUNNING
    at(guest, host.now_ns + 500)
    host.end_turn(vcpu)
    at(guest, host.now_ns + 70)
    host.begin_turn(vcpu)
    host.show_runstate(vcpu)
    second = read(guest, AREA)
    assert second.time[Runstate.RUNNABLE] - first.time[Runstate.RUNNABLE] == 70
    assert second.state_entry_time == host.now_ns


def test_area_that_is_not_mapped_is_no_error(guest: Guest) -> None:
    guest.enter()
    register(guest, UNMAPPED)
    guest.host.show_runstate(guest.vcpu)


def test_area_in_xens_region_is_refused(guest: Guest) -> None:
    guest.enter()
    with refused(Errno.EFAULT, "would be Xen's"):
        register(guest, hole(guest.width))


def test_time_area_is_a_copy_of_the_time(guest: Guest) -> None:
    guest.enter()
    at(guest, 2_000_777_000)
    argument = VcpuRegisterTimeMemoryArea(guest.data + AREA)
    guest.op(HypercallNr.VCPU_OP, VcpuOp.REGISTER_VCPU_TIME_MEMORY_AREA, argument, 0)
    version, _, tsc, system_time, mul, shift, _ = _TIME.unpack(guest.get(_TIME.size, AREA))
    assert version % 2 == 0
    assert (tsc, system_time) == (2_000_000_000, 2_000_000_000)
    assert (mul, shift) == (1 << 31, 1)
