"""`decoder` tells deadlines it met from those it missed, and drops what would be too late."""

from __future__ import annotations

import re

import pytest

from guests import WIDTHS, guest_path
from hypervisor.abi.sched import ShutdownReason
from hypervisor.api import DomainHandle, Machine

SECOND = 10**9


def play(width: str, cmdline: str, nr_busy: int) -> DomainHandle:
    with Machine(memory_mib=64) as machine:
        for _ in range(nr_busy):
            busy = guest_path("bench", width)
            machine.create(busy, memory_mib=4, cmdline="loop=alu n=1000000000")
        film = machine.create(guest_path("decoder", width), memory_mib=4, cmdline=cmdline)
        machine.run(until=lambda: film.shutdown_reason is not None, time_limit_ns=SECOND)
        return film


def missed(film: DomainHandle) -> int:
    found = re.search(rb"^(\d+) of (\d+) deadlines missed$", film.console.output, re.MULTILINE)
    assert found is not None
    late = re.findall(rb"^frame \d+ is (?:late|dropped): ", film.console.output, re.MULTILINE)
    assert len(late) == int(found[1])
    return int(found[1])


@pytest.mark.parametrize("width", WIDTHS)
def test_alone_it_meets_them_all(width: str) -> None:
    assert missed(play(width, "frames=4", 0)) == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_with_less_than_it_needs_it_misses_some(width: str) -> None:
    """A sixth of the CPU is 5.5 ms in each period; it needs 8."""
    film = play(width, "frames=8", 5)
    assert missed(film) > 2
    assert b"is dropped" in film.console.output


def test_too_many_misses_are_a_failed_check() -> None:
    film = play("x86_64", "frames=6 allow=0", 5)
    assert b"ring1: FAIL decoder: 1 of 1 checks failed" in film.console.output


@pytest.mark.parametrize("cmdline", ["hz=0", "frames=0", "work_ms=40"])
def test_a_film_that_cannot_be_is_refused(cmdline: str) -> None:
    film = play("x86_64", cmdline, 0)
    assert b"ring1: FAIL decoder: no film has " in film.console.output
    assert film.shutdown_reason == ShutdownReason.CRASH
