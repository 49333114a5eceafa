"""Timers: what fires next, and in which order."""

from __future__ import annotations

from hypervisor.events.timers import TimerKey, TimerKind, TimerQueue

ONE = TimerKey(1, 0, TimerKind.SINGLESHOT)
OTHER = TimerKey(2, 0, TimerKind.SINGLESHOT)
POLL = TimerKey(1, 0, TimerKind.POLL)


def fired(timers: TimerQueue, now_ns: int) -> list[tuple[int, TimerKey]]:
    return list(iter(lambda: timers.pop_due(now_ns), None))


def test_timers_fire_by_deadline() -> None:
    timers = TimerQueue()
    timers.set(ONE, 30)
    timers.set(OTHER, 10)
    timers.set(POLL, 20)
    assert timers.next_deadline() == 10
    assert fired(timers, 20) == [(10, OTHER), (20, POLL)]
    assert fired(timers, 29) == []
    assert fired(timers, 30) == [(30, ONE)]
    assert timers.next_deadline() is None


def test_equal_deadlines_fire_in_the_order_in_which_they_were_set() -> None:
    timers = TimerQueue()
    timers.set(OTHER, 10)
    timers.set(ONE, 10)
    timers.set(OTHER, 10)  # set anew: behind the other one now
    assert fired(timers, 10) == [(10, ONE), (10, OTHER)]


def test_setting_a_timer_replaces_it() -> None:
    timers = TimerQueue()
    timers.set(ONE, 10)
    timers.set(ONE, 20)
    assert fired(timers, 15) == []
    assert (timers.deadline(ONE), timers.next_deadline()) == (20, 20)


def test_cancelled_timer_does_not_fire() -> None:
    timers = TimerQueue()
    timers.set(ONE, 10)
    timers.cancel(ONE)
    timers.cancel(OTHER)
    assert timers.deadline(ONE) is None
    assert fired(timers, 99) == []


def test_timer_can_be_set_again_to_the_same_time_after_being_cancelled() -> None:
    timers = TimerQueue()
    timers.set(ONE, 10)
    timers.cancel(ONE)
    timers.set(ONE, 10)
    assert fired(timers, 10) == [(10, ONE)]


def test_a_timer_set_over_and_over_costs_no_more_memory_than_one() -> None:
    timers = TimerQueue()
    timers.set(OTHER, 5)
    for number in range(10_000):
        timers.set(ONE, 1 << 60 if number % 3 else 7)
        timers.set(POLL, 1 << 61)
        timers.cancel(POLL)
    assert len(timers._heap) < 100
    timers.set(ONE, 7)
    assert fired(timers, 10) == [(5, OTHER), (7, ONE)]
    assert timers.next_deadline() is None


def test_all_timers_of_a_domain_go_with_it() -> None:
    timers = TimerQueue()
    for key in (ONE, OTHER, POLL):
        timers.set(key, 10)
    timers.cancel_domain(1)
    assert fired(timers, 10) == [(10, OTHER)]
