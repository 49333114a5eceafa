"""Round robin: every runnable vCPU gets one slice in turn, whatever its domain was promised.

The simplest policy there is, and the yardstick for the others.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from hypervisor.domain.domain import Vcpu
from hypervisor.sched.params import SchedParams
from hypervisor.sched.protocol import SchedStats

SLICE_NS: Final = 1_000_000


@dataclass(slots=True)
class _Account:
    params: SchedParams
    stats: SchedStats = field(default_factory=SchedStats)


class RoundRobin:
    """Runnable vCPUs in a queue; the head runs."""

    def __init__(self, slice_ns: int = SLICE_NS) -> None:
        self.slice_ns = slice_ns
        self._queue: deque[Vcpu] = deque()
        self._accounts: dict[int, _Account] = {}
        self._running: Vcpu | None = None
        self._ran_until_ns = 0
        self._slice_ends_ns = 0

    @property
    def least_turn_ns(self) -> int:
        """A slice."""
        return self.slice_ns

    def add_domain(self, domid: int, params: SchedParams, now_ns: int) -> None:
        """Keep an account for `domid`."""
        self._accounts[domid] = _Account(params)

    def remove_domain(self, domid: int, now_ns: int) -> None:
        """Forget `domid` and its vCPUs."""
        self.charge(now_ns)
        self._queue = deque(queued for queued in self._queue if queued.domid != domid)
        if self._running is not None and self._running.domid == domid:
            self._running = None
        del self._accounts[domid]

    def adjust(self, domid: int, params: SchedParams, now_ns: int) -> bool:
        """Remember the parameters, which change nothing here."""
        self._accounts[domid].params = params
        return False

    def wake(self, vcpu: Vcpu, now_ns: int) -> bool:
        """`vcpu` queues at the end."""
        if not any(queued is vcpu for queued in self._queue):
            self._queue.append(vcpu)
        return self._running is None

    def sleep(self, vcpu: Vcpu, now_ns: int) -> bool:
        """`vcpu` leaves the queue."""
        self._queue = deque(queued for queued in self._queue if queued is not vcpu)
        return self._gives_way(vcpu, now_ns)

    def yield_(self, vcpu: Vcpu, now_ns: int) -> bool:
        """The head goes to the end."""
        if not self._queue or self._queue[0] is not vcpu:
            return False
        self._queue.rotate(-1)
        return self._gives_way(vcpu, now_ns)

    def pick(self, now_ns: int) -> tuple[Vcpu, int] | None:
        """The head of the queue, until its slice is over."""
        self.charge(now_ns)
        before = self._running
        if before is not None and now_ns < self._slice_ends_ns:
            return before, self._slice_ends_ns - now_ns
        if before is not None:
            self._queue.rotate(-1)
        self._running = self._queue[0] if self._queue else None
        if self._running is None:
            return None
        self._note_turn(before, self._running)
        self._ran_until_ns = now_ns
        self._slice_ends_ns = now_ns + self.slice_ns
        return self._running, self.slice_ns

    def goes_on_ns(self, now_ns: int) -> int | None:
        """`pick` says it."""
        return None

    def next_event_ns(self) -> int | None:
        """Nothing happens here by itself."""
        return None

    def charge(self, now_ns: int) -> None:
        """Whoever runs has run until now."""
        if self._running is not None:
            self._accounts[self._running.domid].stats.cpu_ns += now_ns - self._ran_until_ns
            self._ran_until_ns = now_ns

    def params(self, domid: int) -> SchedParams:
        """What `domid` is promised, though not here."""
        return self._accounts[domid].params

    def stats(self, domid: int) -> SchedStats:
        """What `domid` got up to the last charge."""
        return self._accounts[domid].stats

    def _gives_way(self, vcpu: Vcpu, now_ns: int) -> bool:
        if vcpu is not self._running:
            return False
        self.charge(now_ns)
        self._running = None
        return True

    def _note_turn(self, before: Vcpu | None, now: Vcpu) -> None:
        if before is None or before.domid != now.domid:
            self._accounts[now.domid].stats.turns += 1
            if before is not None:
                self._accounts[before.domid].stats.preemptions += 1
