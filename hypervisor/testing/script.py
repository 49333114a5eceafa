"""A conversation with consoles, played step by step: expect this, send that.

Matching happens as output arrives; sending happens between runs of the machine, never inside a
callback of the engine. `due()` tells the run loop to stop, so what is sent enters the machine at a
virtual time that the guest's own output defines, and a scripted run repeats bit for bit.

An expectation consumes the output up to the end of its match; the next one looks behind that. It
sees at most the last `WINDOW` bytes when more output comes: a guest that floods its console must
not make every new byte cost a search through megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from hypervisor.testing.c_escapes import unescape

WINDOW: Final = 8192  # bytes behind the newest output in which a match may begin
TAIL_BYTES: Final = 16384  # how much of the end of a console the last lines are taken from


class Console(Protocol):
    """The part of a domain's console that a script uses."""

    def on_output(self, callback: Callable[[bytes], None]) -> None: ...

    def send(self, data: bytes) -> None: ...


class ScriptError(ValueError):
    """A step that cannot be understood; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Expect:
    """Wait until the console has shown a match: of bytes, with `^` and `$` at line ends."""

    pattern: re.Pattern[bytes]
    text: str  # as it was written
    domain: str = ""

    @classmethod
    def parse(cls, text: str, domain: str = "") -> Expect:
        try:
            pattern = re.compile(text.encode(), re.MULTILINE)
        except re.error as error:
            raise ScriptError(f"'{text}' is not a regular expression: {error}") from error
        return cls(pattern, text, domain)


@dataclass(frozen=True, slots=True)
class Send:
    """Type into the console."""

    data: bytes
    text: str
    domain: str = ""

    @classmethod
    def parse(cls, text: str, domain: str = "") -> Send:
        return cls(unescape(text), text, domain)


@dataclass(frozen=True, slots=True)
class RunFor:
    """Let virtual time pass."""

    duration_ns: int


Step = Expect | Send | RunFor


@dataclass(slots=True)
class Transcript:
    """What one console has shown, and how far expectations have consumed it."""

    text: bytearray = field(default_factory=bytearray)
    consumed: int = 0  # matches begin here or later

    def take(self, pattern: re.Pattern[bytes]) -> bool:
        """Whether `pattern` matches behind what is consumed; a match is then consumed too."""
        match = pattern.search(self.text, self.consumed)
        if match is None:
            self.consumed = max(self.consumed, len(self.text) - WINDOW)
            return False
        self.consumed = match.end()
        return True

    def last_lines(self, nr_lines: int) -> list[str]:
        """The last lines with anything on them, readable: no escape sequences or controls."""
        return readable_lines(bytes(self.text[-TAIL_BYTES:]))[-nr_lines:]


TERMINAL_CONTROL: Final = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Za-z0-9]|\x1b[=>78A-Z]")


def readable_lines(data: bytes) -> list[str]:
    """`data` as a person would read it: terminal controls dropped, blank lines left out."""
    text = TERMINAL_CONTROL.sub(b"", data).decode("utf-8", "replace")
    lines = re.split(r"[\r\n]+", text)
    shown = ("".join(c for c in line if c.isprintable() or c == "\t") for line in lines)
    return [line.rstrip() for line in shown if line.strip()]


class Script:
    """Steps, and which of them is next.

    Built on consoles by name; a step without a domain's name uses the only console there is.
    """

    def __init__(self, steps: Sequence[Step], consoles: Mapping[str, Console]) -> None:
        self.steps = list(steps)
        self.position = 0  # index of the step that is next
        self.consoles = dict(consoles)
        self.transcripts = {name: Transcript() for name in consoles}
        for step in self.steps:
            if not isinstance(step, RunFor):
                self._name(step)
        for name, console in consoles.items():
            console.on_output(self._listener(name))

    def _name(self, step: Expect | Send) -> str:
        """The console that `step` means. Raises ScriptError when that cannot be told."""
        if step.domain:
            if step.domain not in self.consoles:
                raise ScriptError(f"no domain is called {step.domain!r}")
            return step.domain
        if len(self.consoles) != 1:
            raise ScriptError(f"which domain is '{step.text}' for? there are {len(self.consoles)}")
        return next(iter(self.consoles))

    def _listener(self, name: str) -> Callable[[bytes], None]:
        transcript = self.transcripts[name]

        def listen(data: bytes) -> None:
            transcript.text += data
            self._match()

        return listen

    def _match(self) -> None:
        """Pass every expectation that is next and met."""
        while isinstance(step := self.next_step, Expect):
            if not self.transcripts[self._name(step)].take(step.pattern):
                return
            self.position += 1

    @property
    def next_step(self) -> Step | None:
        return self.steps[self.position] if self.position < len(self.steps) else None

    @property
    def done(self) -> bool:
        return self.position >= len(self.steps)

    def due(self) -> bool:
        """Whether the machine must stop now: something is to be sent, or all is done."""
        return not isinstance(self.next_step, Expect)

    def act(self) -> RunFor | None:
        """Send all that is due. A wait that is due is counted as done and returned."""
        while (step := self.next_step) is not None:
            if isinstance(step, Send):
                self.position += 1
                self.consoles[self._name(step)].send(step.data)
            elif isinstance(step, RunFor):
                self.position += 1
                return step
            else:
                self._match()  # the text may have come before the expectation was next
                if self.next_step is step:
                    return None
        return None

    def unmet(self) -> str:
        """Which expectation is waiting, counted among the expectations: for a person."""
        expects = [index for index, step in enumerate(self.steps) if isinstance(step, Expect)]
        step = self.next_step
        if not isinstance(step, Expect):
            return "no expectation is waiting"
        which = expects.index(self.position) + 1
        where = f" on {step.domain}'s console" if step.domain else ""
        which_one = f"expectation {which} of {len(expects)}"
        return f"{which_one} was not met: '{step.text}' did not appear{where}"
