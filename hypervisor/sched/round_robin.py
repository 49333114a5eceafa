"""Round robin: every runnable vCPU gets one slice in turn.

The simplest policy there is, and the yardstick for the others.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from hypervisor.domain.domain import Vcpu

SLICE_NS: Final = 1_000_000


class Scheduler(Protocol):
    """What the VMM asks of a scheduling policy. Times are ns of virtual time."""

    def add(self, vcpu: Vcpu, now_ns: int) -> None:
        """`vcpu` can run from now on."""

    def remove(self, vcpu: Vcpu, now_ns: int) -> None:
        """`vcpu` cannot run any more."""

    def pick(self, now_ns: int) -> tuple[Vcpu, int] | None:
        """Who runs now, and for how many ns at most; None when nobody can."""

    def yielded(self, vcpu: Vcpu, now_ns: int) -> None:
        """`vcpu` gave the rest of its slice away, or used it up."""


class RoundRobin:
    """Runnable vCPUs in a queue; the head runs."""

    def __init__(self, slice_ns: int = SLICE_NS) -> None:
        self.slice_ns = slice_ns
        self._queue: deque[Vcpu] = deque()

    def add(self, vcpu: Vcpu, now_ns: int) -> None:
        """`vcpu` queues at the end."""
        if not any(queued is vcpu for queued in self._queue):
            self._queue.append(vcpu)

    def remove(self, vcpu: Vcpu, now_ns: int) -> None:
        """`vcpu` leaves the queue."""
        self._queue = deque(queued for queued in self._queue if queued is not vcpu)

    def pick(self, now_ns: int) -> tuple[Vcpu, int] | None:
        """The head of the queue."""
        return (self._queue[0], self.slice_ns) if self._queue else None

    def yielded(self, vcpu: Vcpu, now_ns: int) -> None:
        """The head goes to the end."""
        if self._queue and self._queue[0] is vcpu:
            self._queue.rotate(-1)
