"""The console script: what is matched where, and when something is sent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hypervisor.testing.script import (
    WINDOW,
    Expect,
    RunFor,
    Script,
    ScriptError,
    Send,
    Step,
    readable_lines,
)


class FakeConsole:
    """Remembers what was sent; `show` is the guest writing."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.callbacks: list[Callable[[bytes], None]] = []

    def on_output(self, callback: Callable[[bytes], None]) -> None:
        self.callbacks.append(callback)

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def show(self, data: bytes) -> None:
        for callback in self.callbacks:
            callback(data)


def script_of(*steps: Step) -> tuple[Script, FakeConsole]:
    console = FakeConsole()
    return Script(steps, {"d": console}), console


def test_steps_happen_in_their_order() -> None:
    script, console = script_of(Expect.parse("a>"), Send.parse(r"x\n"), Expect.parse("b>"))
    script.act()
    assert not script.due()
    console.show(b"a> b>")
    assert script.due()
    script.act()
    assert console.sent == [b"x\n"]
    assert script.done


def test_sending_never_happens_while_output_arrives() -> None:
    script, console = script_of(Expect.parse("a"), Send.parse("x"))
    console.show(b"a")
    assert console.sent == []
    assert script.due()


def test_match_may_be_spread_over_many_chunks() -> None:
    script, console = script_of(Expect.parse("gru+b>"))
    for byte in b"GNU gruuub> ":
        console.show(bytes([byte]))
    assert script.done


def test_each_expectation_looks_behind_the_match_before() -> None:
    script, console = script_of(Expect.parse("one"), Expect.parse("one"))
    console.show(b"one")
    assert not script.done
    console.show(b" one")
    assert script.done


def test_expectation_after_a_send_sees_text_that_came_before_it() -> None:
    script, console = script_of(Expect.parse("a"), Send.parse("x"), Expect.parse("b"))
    console.show(b"a b")
    script.act()
    assert script.done


def test_caret_matches_at_the_start_of_a_line_only() -> None:
    script, console = script_of(Expect.parse("^ok"))
    console.show(b"not ok\r\n")
    assert not script.done
    console.show(b"ok")
    assert script.done


def test_match_begins_within_the_window() -> None:
    script, console = script_of(Expect.parse("(?s)start.*end"))
    console.show(b"start")
    console.show(b"." * (2 * WINDOW))
    console.show(b"end")
    assert not script.done


def test_first_step_may_send() -> None:
    script, console = script_of(Send.parse("x"))
    assert script.due()
    script.act()
    assert console.sent == [b"x"]


def test_wait_is_handed_to_the_caller_once() -> None:
    script, console = script_of(RunFor(5), Send.parse("x"))
    assert script.act() == RunFor(5)
    assert console.sent == []
    assert script.act() is None
    assert console.sent == [b"x"]


def test_two_consoles_are_told_apart() -> None:
    one, two = FakeConsole(), FakeConsole()
    script = Script([Expect.parse("hi", "two"), Send.parse("yo", "one")], {"one": one, "two": two})
    one.show(b"hi")
    assert not script.due()
    two.show(b"hi")
    script.act()
    assert one.sent == [b"yo"]


def test_step_without_a_domain_is_refused_when_there_are_two() -> None:
    with pytest.raises(ScriptError, match=r"^which domain is 'hi' for\? there are 2"):
        Script([Expect.parse("hi")], {"one": FakeConsole(), "two": FakeConsole()})


def test_step_for_an_unknown_domain_is_refused() -> None:
    with pytest.raises(ScriptError, match=r"^no domain is called 'three'"):
        Script([Send.parse("x", "three")], {"one": FakeConsole()})


def test_bad_regular_expression_is_refused() -> None:
    with pytest.raises(ScriptError, match=r"^'\(' is not a regular expression: missing \)"):
        Expect.parse("(")


def test_unmet_names_the_expectation_and_its_number() -> None:
    script, console = script_of(Expect.parse("a"), Send.parse("x"), Expect.parse("one two"))
    console.show(b"a")
    script.act()
    assert script.unmet() == "expectation 2 of 2 was not met: 'one two' did not appear"


def test_last_lines_are_readable() -> None:
    script, console = script_of(Expect.parse("never"))
    console.show(b"one\r\n\r\n\x1b[7mtwo\x1b[0m\x00\r\nthree")
    assert script.transcripts["d"].last_lines(2) == ["two", "three"]


def test_readable_lines_keeps_text_beyond_ascii() -> None:
    assert readable_lines("naïve\n".encode() + b"\xff") == ["naïve", "\ufffd"]
