"""The terminal as a console: keys arrive raw, `^]` alone is ours, settings come back."""

from __future__ import annotations

import contextlib
import os
import pty
import termios
import threading
from collections.abc import Iterator

import pytest

from cli.terminal import Terminal


class Line:
    """A pseudo-terminal: `ours` is the side that a person types on."""

    def __init__(self) -> None:
        self.ours, self.guests = pty.openpty()
        self.woken = threading.Event()

    def type(self, data: bytes) -> None:
        os.write(self.ours, data)


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    for fd in (made.ours, made.guests):
        with contextlib.suppress(OSError):  # a test may have hung up
            os.close(fd)


def read(terminal: Terminal, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = terminal.wait(5)
        assert more, f"only {data!r} came"
        data += more
    return data


@pytest.mark.parametrize(
    "keys",
    [b"ls\r", b"\x03", b"\x1a", b"\t", b"\x1b[A", b"\x04", b"\x11\x13", b"\n"],
    ids=["text", "^C", "^Z", "tab", "up", "^D", "^Q^S", "newline"],
)
def test_keys_arrive_as_they_were_typed(line: Line, keys: bytes) -> None:
    with Terminal(line.guests, line.woken.set) as terminal:
        line.type(keys)
        assert read(terminal, len(keys)) == keys
        assert line.woken.is_set()
        assert not terminal.left


def test_escape_ends_the_session_and_is_not_sent(line: Line) -> None:
    with Terminal(line.guests, line.woken.set) as terminal:
        line.type(b"bye\x1drest")
        assert read(terminal, 3) == b"bye"
        assert terminal.left


def test_hang_up_ends_the_session(line: Line) -> None:
    with Terminal(line.guests, line.woken.set) as terminal:
        os.close(line.ours)
        assert line.woken.wait(5)
        assert terminal.left
        line.ours, _ = pty.openpty()  # so that restoring the settings is what is tested next
        os.dup2(line.ours, line.guests)


def test_waiting_gives_up_after_the_time(line: Line) -> None:
    with Terminal(line.guests, line.woken.set) as terminal:
        assert terminal.wait(0.01) == b""


def test_nothing_typed_is_nothing(line: Line) -> None:
    with Terminal(line.guests, line.woken.set) as terminal:
        assert terminal.typed() == b""


def test_output_still_gets_carriage_returns(line: Line) -> None:
    with Terminal(line.guests, line.woken.set):
        os.write(line.guests, b"a\nb")
        assert os.read(line.ours, 16) == b"a\r\nb"


def test_settings_are_restored_even_after_an_error(line: Line) -> None:
    before = termios.tcgetattr(line.guests)

    def fail() -> None:
        with Terminal(line.guests, line.woken.set):
            assert termios.tcgetattr(line.guests) != before
            raise RuntimeError("in the session")

    with pytest.raises(RuntimeError, match="in the session"):
        fail()
    assert termios.tcgetattr(line.guests) == before
