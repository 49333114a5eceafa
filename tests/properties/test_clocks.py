"""No clock that a guest can read ever goes back, whatever is done to the machine in between.

Guests of every width read all their clocks for ever (`clocks watch=1`) and end themselves when one
of them went back; meanwhile the machine is run in pieces of any length, stepped, its domains paused
and unpaused, its wall clock set, its CPU kicked. Beside them this side computes each vCPU's clock
from what stands in its memory, which must be the system time exactly, inside a slice as well.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from guests import WIDTHS, guest_path
from hypervisor.abi.vcpu import Runstate
from hypervisor.api import DomainState, Machine
from hypervisor.domain.domain import Vcpu
from hypervisor.events.runstate import runstate_info_now
from hypervisor.events.time import TIME_OFFSET, tsc_of

MS: Final = 10**6
NR_DOMAINS: Final = 4
_TIME: Final = struct.Struct("<I4xQQIbB")

domain = st.integers(0, NR_DOMAINS - 1)
happening = st.one_of(
    st.tuples(st.just("run"), st.integers(0, 3 * MS)),
    st.tuples(st.just("run"), st.integers(0, 2000)),
    st.tuples(st.just("sleep"), st.integers(0, 3_000 * MS)),
    st.tuples(st.just("step"), st.integers(1, 40)),
    st.tuples(st.just("pause"), domain),
    st.tuples(st.just("unpause"), domain),
    st.tuples(st.just("kick"), st.just(0)),
    st.tuples(st.just("set wall clock"), st.integers(0, 1 << 62)),
    st.tuples(st.just("charge"), st.integers(0, 5 * MS)),
)


def machine_of_watchers() -> Machine:
    machine = Machine(memory_mib=48)
    machine.audits = False  # nothing here is about frames
    for width in (*WIDTHS, "x86_64"):
        machine.create(guest_path("clocks", width), memory_mib=4, cmdline="watch=1")
    return machine


def happen(machine: Machine, what: str, amount: int) -> None:
    doms = list(machine.domains.values())
    clock = machine.vmm.cpu.clock
    match what:
        case "run":
            machine.run(time_limit_ns=machine.now_ns + amount)
        case "sleep":  # all are paused, and time jumps
            for dom in doms:
                dom.pause()
            machine.run(time_limit_ns=machine.now_ns + amount)
            clock.advance_to_ps((machine.now_ns + amount) * 1000)
            for dom in doms:
                dom.unpause()
        case "step":
            for _ in range(amount):
                machine.step()
        case "pause":
            doms[amount].pause()
        case "unpause":
            doms[amount].unpause()
        case "kick":
            machine.vmm.cpu.kick()
        case "charge":
            clock.charge_ps(amount * 1000)
        case _:
            machine.set_wallclock(amount)


def clock_of(machine: Machine, vcpu: Vcpu) -> int:
    """What a guest would compute now, by the sum in public/xen.h."""
    told = _TIME.unpack_from(machine.vmm.memory.view, vcpu.vcpu_info_maddr + TIME_OFFSET)
    version, stamp, system_time, mul, shift, _ = told
    assert version % 2 == 0
    return int(system_time + ((tsc_of(machine.now_ns) - stamp << shift) * mul >> 32))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(happening, min_size=4, max_size=24))
def test_no_clock_goes_back(course: list[tuple[str, int]]) -> None:
    with machine_of_watchers() as machine:
        vcpus = [dom.vcpus[0] for dom in machine.vmm.host.domains.values()]
        ran = [0] * NR_DOMAINS
        now = 0
        for what, amount in [("run", 4 * MS), *course, ("run", MS)]:
            happen(machine, what, amount)
            assert machine.now_ns >= now
            now = machine.now_ns
            for idx, vcpu in enumerate(vcpus):
                if vcpu.stats.switches:
                    assert clock_of(machine, vcpu) == now
                account = runstate_info_now(vcpu, now)
                assert account.time[Runstate.RUNNING] >= ran[idx]
                assert sum(account.time) == now
                ran[idx] = account.time[Runstate.RUNNING]
        for dom in machine.domains.values():
            assert dom.state is DomainState.RUNNING, dom.console.output.decode()
        assert sum(ran) <= now


@cache
def end_of(kicked: bool) -> tuple[int, str]:
    """Time and digest after the same 20 ms, kicked all along or not."""
    with machine_of_watchers() as machine:
        while machine.now_ns < 20 * MS:
            machine.run(time_limit_ns=min(machine.now_ns + 150_000 if kicked else 20 * MS, 20 * MS))
        return machine.now_ns, machine.digest()


def test_looking_changes_no_clock() -> None:
    assert end_of(True) == end_of(False)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_clock_that_goes_back_is_found(width: str) -> None:
    """The watch can fail: this side turns the machine's clock back once."""
    with Machine(memory_mib=32) as machine:
        dom = machine.create(guest_path("clocks", width), memory_mib=4, cmdline="watch=1")
        machine.run(time_limit_ns=MS)
        machine.vmm.cpu.clock._offset_ps -= 500 * 10**6
        machine.run(time_limit_ns=2 * MS)
        assert dom.state is DomainState.SHUTDOWN
        assert b" went from " in dom.console.output
