"""The session's run loop against a machine whose every run is scripted."""

from __future__ import annotations

import contextlib
import os
import pty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from cli.console_output import ConsoleOutput
from cli.exits import Exit, Refusal
from cli.session import Session
from cli.verdict import Limits
from hypervisor.api import DomainHandle, DomainState, Machine, RunEnd, VmmBug
from hypervisor.testing.script import Expect, Send, Step

NO_LIMITS = Limits(None, None)


@dataclass
class FakeConsole:
    output: bytearray = field(default_factory=bytearray)
    sent: bytearray = field(default_factory=bytearray)
    listeners: list[Callable[[bytes], None]] = field(default_factory=list)

    def on_output(self, listener: Callable[[bytes], None]) -> None:
        self.listeners.append(listener)

    def send(self, data: bytes) -> None:
        self.sent += data

    def show(self, data: bytes) -> None:
        self.output += data
        for listener in self.listeners:
            listener(data)


@dataclass
class FakeDomain:
    name: str = "guest"
    state: DomainState = DomainState.RUNNING
    shutdown_reason: int | None = None
    crash_report: str | None = None
    console: FakeConsole = field(default_factory=FakeConsole)

    def power_off(self) -> RunEnd:
        self.state, self.shutdown_reason = DomainState.SHUTDOWN, 0
        return RunEnd.ALL_STOPPED


@dataclass
class FakeMachine:
    """Each run is one function; it shows output and says why it came back."""

    runs: list[Callable[[], RunEnd]]
    now_ns: int = 0
    limits: list[int | None] = field(default_factory=list)

    def run(
        self,
        *,
        until: Callable[[], bool] | None = None,
        until_entry: None = None,
        time_limit_ns: int | None = None,
    ) -> RunEnd:
        self.limits.append(time_limit_ns)
        end = self.runs.pop(0)()
        return RunEnd.PREDICATE if until is not None and until() else end

    def interrupt(self) -> None: ...


def session_of(domain: FakeDomain, *runs: Callable[[], RunEnd]) -> tuple[Session, FakeMachine]:
    machine = FakeMachine(list(runs))
    handles = cast(Machine, machine), cast(DomainHandle, domain)
    return Session(*handles, ConsoleOutput()), machine


@pytest.fixture
def domain() -> FakeDomain:
    return FakeDomain()


def showing(
    domain: FakeDomain, text: bytes, end: RunEnd = RunEnd.BLOCKED_FOREVER
) -> Callable[[], RunEnd]:
    def run() -> RunEnd:
        domain.console.show(text)
        return end

    return run


PROMPT_TWICE: list[Step] = [Expect.parse("a>"), Send.parse(r"x\n"), Expect.parse("b>")]


def test_conversation_sends_between_runs(domain: FakeDomain) -> None:
    session, _ = session_of(domain, showing(domain, b"a>"), showing(domain, b"b>"))
    assert session.play(PROMPT_TWICE, NO_LIMITS) is Exit.MET
    assert domain.console.sent == b"x\n"


def test_interruption_without_a_reason_is_no_end(domain: FakeDomain) -> None:
    session, _ = session_of(
        domain, lambda: RunEnd.INTERRUPTED, showing(domain, b"a>b>"), lambda: RunEnd.BLOCKED_FOREVER
    )
    assert session.play(PROMPT_TWICE, NO_LIMITS) is Exit.MET


def test_script_that_only_sends_runs_until_the_guest_ends(domain: FakeDomain) -> None:
    session, _ = session_of(domain, lambda: RunEnd.INTERRUPTED, domain.power_off)
    assert session.play([Send.parse("x")], NO_LIMITS) is Exit.MET
    assert domain.console.sent == b"x"


def test_time_limit_is_one_instant_for_all_runs(domain: FakeDomain) -> None:
    session, machine = session_of(
        domain, showing(domain, b"a>"), showing(domain, b"", RunEnd.TIME_LIMIT)
    )
    assert session.play(PROMPT_TWICE, Limits(None, 7_000)) is Exit.UNMET
    assert machine.limits == [7_000, 7_000]


def test_time_out_ends_a_machine_that_would_go_on(domain: FakeDomain) -> None:
    session, machine = session_of(domain)
    machine.run = lambda **_: RunEnd.INTERRUPTED  # type: ignore[method-assign]
    assert session.play([], Limits(0.01, None)) is Exit.UNMET


def raising(error: Exception) -> Callable[[], RunEnd]:
    def run() -> RunEnd:
        raise VmmBug("wrapped") from error

    return run


def test_closed_pipe_inside_a_run_is_no_bug(domain: FakeDomain) -> None:
    session, _ = session_of(domain, raising(BrokenPipeError()))
    with pytest.raises(BrokenPipeError):
        session.play([], NO_LIMITS)


def test_full_disk_inside_a_run_is_no_bug(domain: FakeDomain) -> None:
    session, _ = session_of(domain, raising(OSError(28, "No space left on device")))
    with pytest.raises(Refusal, match=r"^cannot write output: no space left on device$"):
        session.play([], NO_LIMITS)


def test_bug_inside_a_run_stays_one(domain: FakeDomain) -> None:
    session, _ = session_of(domain, raising(ZeroDivisionError()))
    with pytest.raises(VmmBug):
        session.play([], NO_LIMITS)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """A terminal as standard input; what it gives types on it."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "rb", buffering=0) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield lambda data: cast(None, os.write(ours, data))
    with contextlib.suppress(OSError):
        os.close(ours)


def test_attached_guest_that_waits_is_waited_for(
    domain: FakeDomain, keys: Callable[[bytes], None]
) -> None:
    def wait() -> RunEnd:
        keys(b"ls\r")
        return RunEnd.BLOCKED_FOREVER

    session, _ = session_of(domain, wait, domain.power_off)
    assert session.attach(NO_LIMITS) is Exit.MET
    assert domain.console.sent.startswith(b"l")


def test_escape_ends_an_attached_session(
    domain: FakeDomain, keys: Callable[[bytes], None], capfd: pytest.CaptureFixture[str]
) -> None:
    def wait() -> RunEnd:
        keys(b"\x1d")
        return RunEnd.BLOCKED_FOREVER

    session, _ = session_of(domain, wait)
    assert session.attach(NO_LIMITS) is Exit.MET
    said = capfd.readouterr().err
    assert "console of guest; ^] ends the session" in said
    assert "session ended; guest destroyed" in said


def test_guest_that_ends_ends_an_attached_session(
    domain: FakeDomain, keys: Callable[[bytes], None], capfd: pytest.CaptureFixture[str]
) -> None:
    session, _ = session_of(domain, domain.power_off)
    assert session.attach(NO_LIMITS) is Exit.MET
    assert "guest powered off" in capfd.readouterr().err


def test_time_out_ends_an_attached_session_that_waits(
    domain: FakeDomain, keys: Callable[[bytes], None]
) -> None:
    session, _ = session_of(domain, lambda: RunEnd.BLOCKED_FOREVER)
    assert session.attach(Limits(0.05, None)) is Exit.UNMET
