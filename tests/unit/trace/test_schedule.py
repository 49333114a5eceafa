"""Who ran when: spans as they were, and dues as a fluid scheduler would give them."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from hypervisor.abi.vcpu import Runstate
from hypervisor.trace.schedule import Dues, Schedule, Span

RUNNING, RUNNABLE, BLOCKED, OFFLINE = Runstate


def test_spans_end_where_the_next_state_begins() -> None:
    schedule = Schedule()
    for time_ns, state in (
        (0, RUNNABLE),
        (10, RUNNING),
        (30, BLOCKED),
        (70, OFFLINE),
        (80, RUNNABLE),
    ):
        schedule(time_ns, 1, 0, state)
    schedule.finish(90)
    assert schedule.spans == [
        Span(1, 0, RUNNABLE, 0, 10),
        Span(1, 0, RUNNING, 10, 30),
        Span(1, 0, BLOCKED, 30, 70),
        Span(1, 0, RUNNABLE, 80, 90),
    ]


def test_nothing_of_no_length_is_kept() -> None:
    schedule = Schedule()
    schedule(5, 1, 0, RUNNABLE)
    schedule(5, 1, 0, RUNNING)
    schedule.finish(5)
    assert schedule.spans == []


def test_vcpus_are_told_apart() -> None:
    schedule = Schedule()
    schedule(0, 1, 0, RUNNING)
    schedule(4, 1, 1, RUNNING)
    schedule.finish(9)
    assert [(span.vcpu_id, span.start_ns) for span in schedule.spans] == [(0, 0), (1, 4)]


def dues(
    weights: dict[int, int], *changes: tuple[int, int, Runstate], end: int
) -> dict[int, float]:
    account = Dues(weights.__getitem__)
    for time_ns, domid, state in changes:
        account(time_ns, domid, 0, state)
    account.settle(end)
    return {domid: account.due_ns(domid) for domid in weights}


def test_those_who_have_work_share_by_weight() -> None:
    due = dues({1: 1, 2: 3}, (0, 1, RUNNABLE), (0, 2, RUNNING), end=100)
    assert due == pytest.approx({1: 25, 2: 75})


def test_running_or_waiting_is_the_same_to_a_due() -> None:
    due = dues({1: 1, 2: 3}, (0, 1, RUNNING), (0, 2, RUNNABLE), (50, 1, RUNNABLE),
               (50, 2, RUNNING), end=100)  # fmt: skip
    assert due == pytest.approx({1: 25, 2: 75})


def test_who_is_served_at_once_and_sleeps_is_due_just_that() -> None:
    due = dues({1: 1, 2: 1}, (0, 1, RUNNABLE), (0, 2, RUNNING), (10, 2, BLOCKED),
               (10, 1, RUNNING), end=100)  # fmt: skip
    assert due == pytest.approx({1: 90, 2: 10})
    assert dues({1: 1, 2: 1}, (0, 1, RUNNABLE), (0, 2, RUNNING), (10, 2, BLOCKED),
                (10, 1, RUNNING), end=16) == pytest.approx({1: 8, 2: 8})  # fmt: skip


def test_who_waited_and_sleeps_is_due_what_it_had() -> None:
    due = dues({1: 1, 2: 1}, (0, 1, RUNNING), (0, 2, RUNNABLE), (40, 2, RUNNING),
               (40, 1, RUNNABLE), (45, 2, BLOCKED), (45, 1, RUNNING), end=100)  # fmt: skip
    assert due[2] == 5


def test_more_than_its_share_is_not_its_due() -> None:
    """It takes all it likes, 30 of 40, again and again; half is its due."""
    changes = []
    for start in range(0, 400, 40):
        changes += [(start, 1, RUNNABLE), (start, 2, RUNNING), (start + 30, 2, BLOCKED),
                    (start + 30, 1, RUNNING)]  # fmt: skip
    due = dues({1: 1, 2: 1}, *changes, end=400)
    assert due == pytest.approx({1: 200, 2: 200})


def test_several_rest_and_are_done_in_turn() -> None:
    due = dues({1: 1, 2: 1, 3: 1}, (0, 1, RUNNABLE), (0, 2, RUNNING), (0, 3, RUNNABLE),
               (10, 2, BLOCKED), (10, 3, RUNNING), (16, 3, BLOCKED), (16, 1, RUNNING),
               end=100)  # fmt: skip
    assert due == pytest.approx({1: 84, 2: 10, 3: 6})


def test_nobody_has_work_for_a_while() -> None:
    due = dues({1: 2}, (10, 1, RUNNING), (20, 1, BLOCKED), (50, 1, RUNNING), end=60)
    assert due == pytest.approx({1: 20})


def test_a_weight_that_changes_counts_from_then_on() -> None:
    weights = {1: 1, 2: 1}
    account = Dues(weights.__getitem__)
    account(0, 1, 0, RUNNING)
    account(0, 2, 0, RUNNABLE)
    account.settle(100)
    weights[2] = 3
    account.settle(100)
    account.settle(200)
    assert (account.due_ns(1), account.due_ns(2)) == pytest.approx((50 + 25, 50 + 75))


def test_several_vcpus_are_one_domain() -> None:
    account = Dues({1: 1, 2: 1}.__getitem__)
    account(0, 1, 0, RUNNING)
    account(0, 1, 1, RUNNABLE)
    account(0, 2, 0, RUNNABLE)
    account(50, 1, 0, BLOCKED)  # the other one goes on
    account.settle(100)
    assert (account.due_ns(1), account.due_ns(2)) == pytest.approx((50, 50))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4), st.sampled_from(Runstate))))
def test_no_more_is_due_than_there_is(steps: list[tuple[int, int, Runstate]]) -> None:
    account = Dues(lambda domid: domid)
    now = 0
    for step, domid, state in steps:
        now += step
        account(now, domid, 0, state)
        if step % 5 == 0:
            account.settle(now)
    account.settle(now)
    dues = [account.due_ns(domid) for domid in range(1, 5)]
    assert all(due >= -1e-6 for due in dues)
    assert sum(dues) <= now + 1e-6
