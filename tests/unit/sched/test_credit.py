"""Credit: shares by weight, boosts, and what BVT cannot do: a cap."""

from __future__ import annotations

import itertools

import pytest

from hypervisor.sched.credit import TICK_NS, TSLICE_NS, Credit
from hypervisor.sched.params import SchedParams, SchedSettings
from tests.support.sched_board import MS, SECOND, SchedBoard


def credit_board(*weights: int) -> SchedBoard:
    machine = SchedBoard(Credit(SchedSettings()))
    for domid, weight in enumerate(weights, 1):
        machine.spinner(domid, SchedParams(weight=weight))
    return machine


def test_shares_follow_the_weights() -> None:
    machine = credit_board(256, 512, 1024)
    machine.run(60 * SECOND)
    shares = [machine.scheduler.stats(domid).cpu_ns / (60 * SECOND) for domid in (1, 2, 3)]
    assert shares == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.02)


def test_turn_is_a_slice_unless_somebody_is_better() -> None:
    machine = credit_board(1, 1)
    machine.run(3 * SECOND)
    starts = [since_ns for since_ns, _ in machine.runs]
    turns = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(TICK_NS <= turn <= 2 * TSLICE_NS for turn in turns)


def test_who_wakes_under_is_boosted_and_runs_at_once() -> None:
    machine = credit_board(1, 1, 1)
    sleeper = machine.periodic(4, 50 * MS, MS)
    machine.run(5 * SECOND)
    assert len(sleeper.latencies_ns) > 90
    assert max(sleeper.latencies_ns) == 0
    assert machine.scheduler.stats(4).warps == 1  # and stays boosted: no tick finds it running


def test_capped_domain_gets_its_cap_of_an_idle_machine() -> None:
    machine = SchedBoard(Credit(SchedSettings()))
    capped = machine.spinner(1, SchedParams(cap_percent=25))
    machine.run(30 * SECOND)
    assert capped.service_ns / (30 * SECOND) == pytest.approx(0.25, abs=0.02)


def test_capped_domain_gets_no_more_beside_others() -> None:
    machine = SchedBoard(Credit(SchedSettings()))
    machine.spinner(1, SchedParams(cap_percent=10))
    machine.spinner(2)
    machine.run(30 * SECOND)
    assert machine.scheduler.stats(1).cpu_ns / (30 * SECOND) == pytest.approx(0.10, abs=0.02)
    assert machine.scheduler.stats(2).cpu_ns / (30 * SECOND) == pytest.approx(0.90, abs=0.02)


def test_cap_taken_away_frees_at_once() -> None:
    machine = SchedBoard(Credit(SchedSettings()))
    task = machine.spinner(1, SchedParams(cap_percent=10))
    machine.run(SECOND)
    machine.adjust(task, SchedParams())
    machine.run(2 * SECOND)
    assert task.service_ns >= SECOND + SECOND // 20


def test_long_idle_time_is_passed_over() -> None:
    machine = credit_board()
    task = machine.add(1)
    machine.at(10_000_000 * SECOND, lambda: machine.wake(task))
    machine.run(10_000_001 * SECOND)
    assert task.service_ns == SECOND
