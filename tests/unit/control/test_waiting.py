"""Waiting by the host's clock: asleep until the next timer, and awake when somebody calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from guests import guest_path
from hypervisor.api import DomainHandle, Machine, RunEnd

MS = 10**6
FRAMES = "frames=3 work_ms=0"  # decoder: sleeps 33 ms three times, and does nothing


class Host:
    """A host on which time passes while it sleeps, and a little at each look at its clock."""

    def __init__(self) -> None:
        self.now_ns = 10**12
        self.slept: list[float] = []
        self.while_asleep: Callable[[], None] = lambda: None

    def monotonic_ns(self) -> int:
        self.now_ns += 100
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)
        self.while_asleep()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    fake = Host()
    monkeypatch.setattr("hypervisor.machine.clock.time", fake)
    return fake


@pytest.fixture
def sleeper(host: Host) -> Iterator[tuple[Machine, DomainHandle]]:
    with Machine(memory_mib=32, clock="host") as machine:
        yield machine, machine.create(guest_path("decoder", "x86_64"), memory_mib=4, cmdline=FRAMES)


def test_it_sleeps_through_and_does_not_look_all_the_time(
    host: Host, sleeper: tuple[Machine, DomainHandle]
) -> None:
    machine, dom = sleeper
    assert machine.run() is RunEnd.ALL_STOPPED
    assert b"0 of 3 deadlines missed" in dom.console.output
    assert sum(host.slept) > 0.090
    assert len(host.slept) <= 3 * 3  # 20 ms at a time, so that a signal is noticed


def test_it_can_be_called_while_it_sleeps(
    host: Host, sleeper: tuple[Machine, DomainHandle]
) -> None:
    machine, dom = sleeper
    host.while_asleep = machine.interrupt
    assert machine.run() is RunEnd.INTERRUPTED
    assert len(host.slept) == 1
    assert dom.is_blocked


def test_virtual_time_does_not_wait(host: Host) -> None:
    with Machine(memory_mib=32) as machine:
        machine.create(guest_path("decoder", "x86_64"), memory_mib=4, cmdline=FRAMES)
        assert machine.run() is RunEnd.ALL_STOPPED
        assert machine.now_ns > 100 * MS
    assert host.slept == []
