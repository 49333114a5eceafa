"""Time: by retired guest work, or by the host's clock.

Virtual time counts the bytes of instructions completed, times a constant. It depends on the guest's
instruction stream alone: not on how code was cut into blocks, on what was cached, or on who
watched. The engine charges a block before it runs it (`_native`); `settle` takes back what was not
reached.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from hypervisor.machine._native import COUNTER, END, START
from hypervisor.machine.state import CS, RIP, CpuState

DEFAULT_PS_PER_BYTE: Final = 250
_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF


class Clock(Protocol):
    """What the Cpu and its owner ask of time. All in picoseconds since the machine was made."""

    def now_ps(self) -> int:
        """The present time, exact at any point of the guest's run."""

    def now_ns(self) -> int:
        """The same in nanoseconds, rounded down."""

    def advance_to_ps(self, time_ps: int) -> None:
        """Nothing runs until `time_ps`: jump there, or wait."""

    def charge_ps(self, duration_ps: int) -> None:
        """The machine's own work took this long."""


class VirtualClock:
    """Time by retired guest work."""

    def __init__(self, words: memoryview, state: CpuState, ps_per_byte: int) -> None:
        if ps_per_byte <= 0:
            raise ValueError(f"{ps_per_byte} ps per byte: time has to pass")
        self.ps_per_byte = ps_per_byte
        self._words = words
        self._state = state
        self._offset_ps = 0

    def bytes_left(self) -> int:
        """How many bytes of the block entered last are not completed: all from RIP on."""
        words = self._words
        end = words[END]
        if not end:
            return 0
        state = self._state
        linear = state.q[RIP] + state.segment_base(CS) & (_M64 if state.is_long_code else _M32)
        return end - linear if words[START] <= linear < end else 0

    def settle(self) -> None:
        """The guest stopped at RIP: what lies behind in its block was not done."""
        words = self._words
        if words[END]:
            words[COUNTER] -= self.bytes_left()
            words[END] = 0

    def settle_complete(self) -> None:
        """The block entered last was done to its end."""
        self._words[END] = 0

    def now_ps(self) -> int:
        """The present time."""
        return self._offset_ps + (self._words[COUNTER] - self.bytes_left()) * self.ps_per_byte

    def worked_ps(self) -> int:
        """How much of it guests have worked; the rest was idle or charged."""
        return (self._words[COUNTER] - self.bytes_left()) * self.ps_per_byte

    def now_ns(self) -> int:
        """The present time in ns."""
        return self.now_ps() // 1000

    def advance_to_ps(self, time_ps: int) -> None:
        """Jump to `time_ps`; never backwards."""
        self._offset_ps += max(0, time_ps - self.now_ps())

    def charge_ps(self, duration_ps: int) -> None:
        """Let time pass."""
        self._offset_ps += duration_ps

    def counter_at(self, time_ps: int) -> int:
        """The smallest counter value at which it is `time_ps` or later."""
        return max(0, -(-(time_ps - self._offset_ps) // self.ps_per_byte))


class HostClock(VirtualClock):
    """Time by the host's monotonic clock: for people at a terminal, not for what is repeated."""

    def __init__(self, words: memoryview, state: CpuState, ps_per_byte: int) -> None:
        super().__init__(words, state, ps_per_byte)
        self._start_ns = time.monotonic_ns()

    def now_ps(self) -> int:
        """Since the machine was made."""
        return (time.monotonic_ns() - self._start_ns) * 1000

    def advance_to_ps(self, time_ps: int) -> None:
        """Wait, in slices short enough that a kick is noticed."""
        time.sleep(min(max(0, time_ps - self.now_ps()) / 1e12, 0.02))

    def charge_ps(self, duration_ps: int) -> None:
        """The host's time passes by itself."""

    @contextmanager
    def alarm(self, time_ps: int, ring: Callable[[], None]) -> Iterator[None]:
        """Call `ring` from another thread at `time_ps`, unless what is within is over before."""
        timer = threading.Timer(max(0, time_ps - self.now_ps()) / 1e12, ring)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
