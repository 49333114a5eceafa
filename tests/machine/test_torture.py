"""A program of everything hard runs the same, exit by exit, however it is run and disturbed."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from hypervisor.machine.cpu import StateAccess, Stop
from tests.support.board import ABSENT, CODE, RBX, Board
from tests.support.storm import storm

EDGE = 0xD000
LAST = 0xFF
TF = 1 << 8
IOPL_3 = 3 << 12
SOURCE = Path(__file__).with_name("torture.S")


@cache
def program() -> bytes:
    """The assembled program; it names no address but its own."""
    # fmt: off
    command = [
        sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-freestanding-none",
        "-c", str(SOURCE), "-o", "/dev/stdout",
    ]
    # fmt: on
    assembled = subprocess.run(command, check=True, capture_output=True).stdout
    text = ELFFile(io.BytesIO(assembled)).get_section_by_name(".text")
    assert text is not None
    return bytes(text.data())


@dataclass(slots=True)
class Course:
    """How a run went: each exit and each stop at a deadline, and what memory was left."""

    exits: list[tuple[Any, ...]]
    deadlines: list[tuple[int, int]]
    memory: str
    disturbed: int = 0


def owner(board: Board) -> Callable[[str, int, int], None]:
    """Go on at RBX after a fault, behind everything else; take TF away at int 0x21."""

    def handle(kind: str, number: int, error_code: int) -> None:
        state = board.cpu.state
        if kind == "exception" and number != 1:
            state.rip = state.gpr(RBX)
        elif (kind, number) == ("int", 0x21):
            state.rflags &= ~TF
        elif (kind, number) == ("int", LAST):
            board.cpu.request_stop()

    return handle


Disturb = Callable[[Board], Callable[[], None]]


def course(
    run: Callable[[Board], list[tuple[int, int]]],
    access: StateAccess = StateAccess.LIVE,
    native: bool | None = None,
) -> Course:
    """Run the program once, by `run`, which gives back the deadlines it was stopped at."""
    board = Board("long", access, native)
    board.handler = owner(board)
    board.map_page(EDGE + 0x1000, None)
    board.load(program())
    board.start(CODE)
    board.cpu.state.rflags |= IOPL_3
    deadlines = run(board)
    assert board.seen[-1][:2] == ("int", LAST)
    exits = list(zip(board.seen, board.times, board.checksums, strict=True))
    memory = hashlib.sha256(board.memory.view[:ABSENT]).hexdigest()
    board.cpu.close()
    return Course(exits, deadlines, memory)


def freely(board: Board) -> list[tuple[int, int]]:
    """Without a stop."""
    assert board.cpu.run(None) is Stop.REQUESTED
    return []


def by_slices(board: Board) -> list[tuple[int, int]]:
    """Stopped at deadlines that a generator gives."""
    chance = random.Random(3)
    clock, stops = board.cpu.clock, []
    while board.cpu.run(clock.now_ps() + chance.randrange(1, 60_000)) is not Stop.REQUESTED:
        stops.append((clock.now_ps(), board.cpu.state.rip))
    return stops


def stepped(board: Board) -> list[tuple[int, int]]:
    """One instruction at a time."""
    while board.cpu.step() is not Stop.REQUESTED:
        pass
    return []


def stormed(board: Board) -> list[tuple[int, int]]:
    """Another thread stops it all the time."""
    with storm(board.cpu):
        while board.cpu.run(None) is not Stop.REQUESTED:
            pass
    return []


def code_dropped(board: Board) -> list[tuple[int, int]]:
    """All translated code is forgotten at one exit in three."""
    chance = random.Random(5)
    handle = board.handler

    def drop(kind: str, number: int, error_code: int) -> None:
        if chance.random() < 0.33:
            board.cpu.drop_code()
        handle(kind, number, error_code)

    board.handler = drop
    return freely(board)


def broken(board: Board) -> list[tuple[int, int]]:
    """Breakpoints at the starts and in the middles of its blocks."""
    for offset in range(0, len(program()), 7):
        board.cpu.add_breakpoint(CODE + offset)
    hits = 0
    while (stop := board.cpu.run(None)) is not Stop.REQUESTED:
        assert stop is Stop.BREAKPOINT
        hits += 1
    assert hits > 100
    return []


@cache
def reference() -> Course:
    """The program as it runs when nothing disturbs it."""
    return course(freely)


@cache
def sliced_reference() -> Course:
    """The same, stopped at deadlines."""
    return course(by_slices)


def first_difference(expected: Course, found: Course) -> str:
    for number, (one, other) in enumerate(zip(expected.exits, found.exits, strict=False)):
        if one != other:
            return f"exit {number}: expected {one}, found {other}"
    if len(expected.exits) != len(found.exits):
        return f"{len(expected.exits)} exits expected, found {len(found.exits)}"
    return "" if expected.memory == found.memory else "memory"


WAYS = {
    "freely": freely,
    "slices": by_slices,
    "stepped": stepped,
    "storm": stormed,
    "dropped": code_dropped,
    "breakpoints": broken,
}


@pytest.mark.parametrize("native", [None, False], ids=["native", "python"])
@pytest.mark.parametrize("way", WAYS)
def test_every_course_is_the_same(way: str, access: StateAccess, native: bool | None) -> None:
    found = course(WAYS[way], access, native)
    assert first_difference(reference(), found) == ""
    if way == "slices":
        assert found.deadlines == sliced_reference().deadlines


def test_the_program_does_all_that_it_is_for() -> None:
    kinds = {exit_[0][:2] for exit_ in reference().exits}
    vectors = {number for kind, number in kinds if kind == "exception"}
    assert {0, 1, 6, 13, 14} <= vectors
    assert {"int", "syscall", "cpuid", "rdtsc", "in", "out"} <= {kind for kind, _ in kinds}
    assert len(sliced_reference().deadlines) > 100
