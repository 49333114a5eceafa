"""Timers in virtual time: what happens next, and when.

One heap for the machine. A timer is named by a key, so that setting it again replaces it; equal
deadlines fire in the order in which they were set, so a run can be repeated.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

_STALE: Final = 64  # so many entries that count no more are carried along


class TimerKind(Enum):
    """What a timer does when it fires."""

    SINGLESHOT = "singleshot"  # set_timer_op and VCPUOP_set_singleshot_timer: they share it
    PERIODIC = "periodic"  # VCPUOP_set_periodic_timer
    POLL = "poll"  # the time-out of SCHEDOP_poll
    WATCHDOG = "watchdog"  # SCHEDOP_watchdog; the domain's, `vcpu_id` says which
    START = "start"  # takes back one pause, for the control side
    GIVE_WAY = "give way"  # it has sent an IPI, and others are to see to that


@dataclass(frozen=True, slots=True)
class TimerKey:
    """Whose timer, and which."""

    domid: int
    vcpu_id: int
    kind: TimerKind


@dataclass(slots=True)
class TimerQueue:
    """Pending timers by deadline in ns of system time."""

    _heap: list[tuple[int, int, TimerKey]] = field(default_factory=list)
    _live: dict[TimerKey, tuple[int, int]] = field(default_factory=dict)
    _serial: int = 0

    def set(self, key: TimerKey, deadline_ns: int) -> None:
        """Let `key` fire at `deadline_ns`, whatever it was set to before."""
        self._serial += 1
        self._live[key] = (deadline_ns, self._serial)
        heapq.heappush(self._heap, (deadline_ns, self._serial, key))
        if len(self._heap) > 2 * len(self._live) + _STALE:
            self._sweep()

    def _sweep(self) -> None:
        """Drop what was replaced or cancelled: guests set timers as often as they like."""
        self._heap = [(deadline, serial, key) for key, (deadline, serial) in self._live.items()]
        heapq.heapify(self._heap)

    def cancel(self, key: TimerKey) -> None:
        """`key` does not fire any more."""
        self._live.pop(key, None)

    def cancel_domain(self, domid: int) -> None:
        """No timer of `domid` fires any more."""
        for key in [key for key in self._live if key.domid == domid]:
            del self._live[key]

    def deadline(self, key: TimerKey) -> int | None:
        """When `key` fires, None if it is not set."""
        entry = self._live.get(key)
        return entry[0] if entry else None

    def next_deadline(self) -> int | None:
        """The earliest deadline, None when no timer is set."""
        heap = self._heap
        while heap and self._live.get(heap[0][2]) != heap[0][:2]:
            heapq.heappop(heap)  # replaced or cancelled since
        return heap[0][0] if heap else None

    def pop_due(self, now_ns: int) -> tuple[int, TimerKey] | None:
        """The first timer due at `now_ns` with its deadline, removed; None when none is."""
        due = self.next_deadline()
        if due is None or due > now_ns:
            return None
        deadline, _, key = heapq.heappop(self._heap)
        del self._live[key]
        return deadline, key
