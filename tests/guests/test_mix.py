"""Eight domains of two vCPUs each, of all widths, twice: the same trace and the same memory."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final

import pytest

from guests import WIDTHS, guest_path
from hypervisor.api import Entry, Machine, RunEnd
from tests.support.storm import storm

SECOND: Final = 10**9
NR_DOMAINS: Final = 8


def populate(machine: Machine) -> None:
    """smp and ticker in turn, in each width in turn."""
    for nr in range(NR_DOMAINS):
        name, cmdline = (("smp", "rounds=50"), ("ticker", "ticks=5 period_ms=1"))[nr % 2]
        machine.create(
            guest_path(name, WIDTHS[nr % 3]),
            name=f"{name}{nr}",
            memory_mib=8,
            cmdline=cmdline,
            nr_vcpus=2,
        )


def play(*, traced: bool = True, stormy: bool = False) -> tuple[str, str, int, list[str]]:
    """The trace's hash ("" untraced), the machine's digest, its time, what each domain said last.

    The trace is every entry into the hypervisor with time, place, arguments, result and registers.
    """
    trace = hashlib.sha256()

    def note(entry: Entry) -> None:
        trace.update(repr(entry).encode())

    with Machine(memory_mib=160) as machine:
        populate(machine)
        if traced:
            machine.on_entry.append(note)
        if stormy:
            with storm(machine.vmm.cpu):
                end = machine.run(time_limit_ns=10 * SECOND)
        else:
            end = machine.run(time_limit_ns=10 * SECOND)
        assert end is RunEnd.ALL_STOPPED
        last = [dom.console.output.decode().splitlines()[-1] for dom in machine.domains.values()]
        return trace.hexdigest() if traced else "", machine.digest(), machine.now_ns, last


@cache
def reference() -> tuple[str, str, int, list[str]]:
    return play()


@pytest.mark.slow
def test_all_pass() -> None:
    assert [line for line in reference()[3] if not line.startswith("ring1: PASS")] == []


@pytest.mark.slow
def test_two_runs_are_the_same() -> None:
    assert play() == reference()


@pytest.mark.slow
def test_nobody_need_watch() -> None:
    assert play(traced=False)[1:] == reference()[1:]


@pytest.mark.slow
def test_a_storm_of_stops_changes_nothing() -> None:
    assert play(stormy=True) == reference()
