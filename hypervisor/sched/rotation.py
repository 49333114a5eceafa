"""Inside a domain's turn: its runnable vCPUs one after the other, in short slices.

The slices are short because vCPUs of one kernel wait for each other: one that spins for a lock must
not keep out the one that holds it. So a vCPU that got an event from its sibling goes first, at
once. It gets what is left of the sibling's slice and no new one: two that send each other events
for ever share the slice of one, and the others' turns come as before.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from hypervisor.domain.domain import Vcpu

SLICE_NS: Final = 1_000_000


class Rotation:
    """A domain's runnable vCPUs; the first one runs when the domain does."""

    __slots__ = ("_queue", "_used_ns")

    def __init__(self) -> None:
        self._queue: deque[Vcpu] = deque()
        self._used_ns = 0  # of the slice of the first

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def first(self) -> Vcpu:
        """Who runs."""
        return self._queue[0]

    def holds(self, vcpu: Vcpu) -> bool:
        """Whether `vcpu` is among them. vCPUs are compared by who they are."""
        return any(queued is vcpu for queued in self._queue)

    def append(self, vcpu: Vcpu) -> None:
        """`vcpu` runs when the others had their slices."""
        self._queue.append(vcpu)

    def remove(self, vcpu: Vcpu) -> None:
        """`vcpu` cannot run; if it was the first, the next one has a whole slice."""
        if self._queue and self._queue[0] is vcpu:
            self._used_ns = 0
        self._queue = deque(queued for queued in self._queue if queued is not vcpu)

    def favour(self, vcpu: Vcpu) -> bool:
        """`vcpu` goes first, and who was first goes last; whether that changed anything."""
        if self._queue[0] is vcpu:
            return False
        before = self._queue[0]
        rest = [queued for queued in self._queue if queued is not vcpu and queued is not before]
        self._queue = deque([vcpu, *rest, before])
        return True

    def rotate(self) -> bool:
        """The first goes last, and the next has a whole slice; whether there was another."""
        self._used_ns = 0
        self._queue.rotate(-1)
        return len(self._queue) > 1

    def charge(self, duration_ns: int) -> None:
        """The first ran that long."""
        self._used_ns += duration_ns

    def left_ns(self) -> int | None:
        """What is left of the slice of the first, which is rotated if that is nothing.

        None: it is alone and has no slices.
        """
        if len(self._queue) < 2:
            self._used_ns = 0
            return None
        if self._used_ns >= SLICE_NS:
            self.rotate()
        return SLICE_NS - self._used_ns
