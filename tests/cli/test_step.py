"""`ring1 step` from its standard input: what moves the guest, what shows it, what is refused."""

from __future__ import annotations

import io
import re

import pytest

from cli.exits import Exit
from cli.main import main
from guests import guest_path
from hypervisor.api import Entry, Machine
from hypervisor.trace.names import entry_name


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Stepping:
    return Stepping(monkeypatch, capfd)


class Stepping:
    """Runs a list of commands and gives what was printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, *commands: str, width: str = "x86_32") -> str:
        text = "".join(f"{command}\n" for command in commands)
        self._monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert main(["step", "hello", "--width", width, "--memory", "16"]) == Exit.MET
        return self._capfd.readouterr().out


def positions(text: str) -> list[tuple[int, int]]:
    """(virtual time in ns, rip) of each line that says where the guest stands."""
    found = re.findall(r"^ *(\d+) ns  d1v0 cpl\d  0x([0-9a-f]+)", text, re.MULTILINE)
    return [(int(time), int(rip, 16)) for time, rip in found]


@pytest.mark.parametrize(("width", "cpl"), [("x86_32", 1), ("x86_32p", 1), ("x86_64", 1)])
def test_session_starts_at_the_entry_point(step: Stepping, width: str, cpl: int) -> None:
    text = step("q", width=width)
    assert positions(text)[0][0] == 0
    assert f"cpl{cpl}" in text


def test_stepping_moves_one_instruction(step: Stepping) -> None:
    (_, first), (_, second), (_, third) = positions(step("s", "s"))
    assert 0 < second - first <= 15
    assert third != second


def test_many_steps_are_the_same_as_one_at_a_time(step: Stepping) -> None:
    assert positions(step(*["s"] * 12))[-1] == positions(step("s 12"))[-1]


def test_empty_line_repeats(step: Stepping) -> None:
    assert positions(step("s", "", "")) == positions(step("s", "s", "s"))


def test_next_hypercall_is_told_with_its_result(step: Stepping) -> None:
    assert re.search(r"^hypercall: \w+\(0x.*\) = 0x", step("h"), re.MULTILINE)


def test_running_on_tells_how_the_guest_ended(step: Stepping) -> None:
    text = step("c")
    assert "ring1: PASS hello" in text
    assert text.rstrip().endswith("hello powered off")


def test_stepping_an_ended_guest_is_harmless(step: Stepping) -> None:
    text = step("c", "s", "h", "r", "d", "x 0x1000")
    assert text.count("hello powered off") >= 3
    assert text.count("hello has no vCPU that could run now") == 3


def test_registers_are_those_of_the_width(step: Stepping) -> None:
    assert re.search(r"\beip [0-9a-f]{8}\b", step("r"))
    assert re.search(r"\brip [0-9a-f]{16}\b", step("r", width="x86_64"))


def test_listing_starts_at_the_instruction_that_is_next(step: Stepping) -> None:
    text = step("d")
    (_, rip), *_ = positions(text)
    assert f"-> {rip:#010x}" in text


def test_start_info_is_where_esi_says(step: Stepping) -> None:
    esi = re.search(r"\besi ([0-9a-f]{8})", step("r"))
    assert esi is not None
    assert "xen-3.0-x86_32" in step(f"x 0x{esi[1]} 32")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("jump", "no command is called 'jump'; `help` lists them"),
        ("s many", "'many' is not a number"),
        ("s -1", "-1 is negative"),
        ("x", "x wants an address"),
        ("x 0x10", "vaddr 0x10 is not mapped"),
        ("d 0x10", "vaddr 0x10 is not mapped"),
        ("x 'unclosed", "No closing quotation"),
    ],
)
def test_mistake_is_a_sentence_and_the_session_goes_on(
    step: Stepping, command: str, said: str
) -> None:
    text = step(command, "help")
    assert said in text
    assert "run to the next hypercall" in text


def test_no_hypercall_is_passed_over(step: Stepping) -> None:
    """Those told one by one are those of a run in one go."""
    with Machine(memory_mib=80) as machine:
        machine.create(guest_path("hello", "x86_32"))
        entries: list[Entry] = []
        machine.on_entry.append(entries.append)
        machine.run()
    expected = [entry for entry in entries if entry.kind == "hypercall"][:6]
    told = re.findall(r"^hypercall: (\w+)\(", step(*["h"] * 6), re.MULTILINE)
    assert told == [entry_name(entry.kind, entry.number) for entry in expected]
