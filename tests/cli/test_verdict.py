"""What an end of a run means: each kind of end has its status and its sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from cli.exits import Exit
from cli.verdict import Ending, Limits, judge
from cli.watch import Watch
from hypervisor.abi.sched import ShutdownReason
from hypervisor.api import DomainHandle, DomainState, Machine, RunEnd
from hypervisor.testing.script import Expect, Script, Send, Step


@dataclass
class FakeConsole:
    output: bytearray = field(default_factory=lambda: bytearray(b"one\r\n\x1b[1mtwo\x1b[0m\r\n> "))

    def on_output(self, callback: object) -> None: ...

    def send(self, data: bytes) -> None: ...


@dataclass
class FakeDomain:
    name: str = "guest"
    state: DomainState = DomainState.RUNNING
    shutdown_reason: int | None = None
    crash_report: str | None = None
    console: FakeConsole = field(default_factory=FakeConsole)


@dataclass
class FakeMachine:
    now_ns: int = 1_500_000_000


def verdict(
    domain: FakeDomain,
    run_end: RunEnd = RunEnd.ALL_STOPPED,
    *,
    steps: tuple[Step, ...] = (),
    timed_out: bool = False,
) -> tuple[Exit, str]:
    watch = Watch(lambda: None, 2.5)
    watch.timed_out = timed_out
    script = Script(steps, {"guest": domain.console})
    ending = Ending(run_end, watch, Limits(2.5, None), script)
    status, sentences = judge(cast(Machine, FakeMachine()), cast(DomainHandle, domain), ending)
    return status, "\n".join(sentences)


def shut_down(reason: int) -> FakeDomain:
    return FakeDomain(state=DomainState.SHUTDOWN, shutdown_reason=reason)


@pytest.mark.parametrize(
    ("reason", "status", "said"),
    [
        (ShutdownReason.POWEROFF, Exit.MET, "guest powered off after 1.500000 s of virtual time"),
        (ShutdownReason.REBOOT, Exit.MET, "guest asked for a reboot"),
        (ShutdownReason.SUSPEND, Exit.UNMET, "guest asked to be suspended"),
        (ShutdownReason.CRASH, Exit.CRASHED, "guest reported a crash"),
        (99, Exit.UNMET, "guest shut down with the unknown reason 99"),
    ],
)
def test_shutdown_reason_decides(reason: int, status: Exit, said: str) -> None:
    got, text = verdict(shut_down(reason))
    assert got is status
    assert text.startswith(said)


def test_powering_off_says_nothing_more() -> None:
    assert "\n" not in verdict(shut_down(ShutdownReason.POWEROFF))[1]


def test_crash_shows_the_report() -> None:
    domain = FakeDomain(state=DomainState.CRASHED, crash_report="RIP: e033:[<c0001000>]\n")
    status, text = verdict(domain)
    assert status is Exit.CRASHED
    assert "guest crashed after 1.500000 s" in text
    assert "RIP: e033:[<c0001000>]" in text


def test_failed_check_of_an_own_guest_counts_as_a_crash() -> None:
    domain = shut_down(ShutdownReason.POWEROFF)
    domain.console.output += b"\r\nring1: FAIL traps: 2 of 40 checks failed\r\n"
    status, text = verdict(domain)
    assert status is Exit.CRASHED
    assert "guest reported a failure (2 of 40 checks failed)" in text


def test_blocking_for_ever_is_unmet_and_shows_the_last_lines() -> None:
    status, text = verdict(FakeDomain(), RunEnd.BLOCKED_FOREVER)
    assert status is Exit.UNMET
    assert "guest blocked for ever" in text
    assert text.endswith("  | one\n  | two\n  | >")


def test_time_limit_is_unmet() -> None:
    status, text = verdict(FakeDomain(), RunEnd.TIME_LIMIT)
    assert status is Exit.UNMET
    assert "still running after 1.500000 s of virtual time, the time limit" in text


def test_time_out_is_unmet_and_in_the_hosts_seconds() -> None:
    status, text = verdict(FakeDomain(), RunEnd.INTERRUPTED, timed_out=True)
    assert status is Exit.UNMET
    assert "guest was still running after 2.5 s" in text


def test_console_without_output_is_said_so() -> None:
    domain = FakeDomain(console=FakeConsole(bytearray()))
    assert verdict(domain, RunEnd.BLOCKED_FOREVER)[1].endswith("its console shows nothing")


def test_unmet_expectation_is_named_before_the_reason() -> None:
    status, text = verdict(FakeDomain(), RunEnd.BLOCKED_FOREVER, steps=(Expect.parse("zwei"),))
    assert status is Exit.UNMET
    assert text.startswith("expectation 1 of 1 was not met: 'zwei' did not appear\nguest blocked")


def test_powering_off_before_the_expectation_is_unmet() -> None:
    status, text = verdict(shut_down(ShutdownReason.POWEROFF), steps=(Expect.parse("zwei"),))
    assert status is Exit.UNMET
    assert "guest powered off" in text


def test_crash_before_the_expectation_stays_a_crash() -> None:
    status, text = verdict(FakeDomain(state=DomainState.CRASHED), steps=(Expect.parse("zwei"),))
    assert status is Exit.CRASHED
    assert "expectation 1 of 1" in text


def test_script_that_only_sends_leaves_the_verdict_to_the_guest() -> None:
    steps = (Send.parse("x"),)
    assert verdict(shut_down(ShutdownReason.POWEROFF), steps=steps)[0] is Exit.MET
    assert verdict(FakeDomain(), RunEnd.BLOCKED_FOREVER, steps=steps)[0] is Exit.UNMET
