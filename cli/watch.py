"""What may end a run from outside the machine: ^C, a termination signal, a time-out.

Each only sets a flag and asks the machine to come out of its run; nothing is ever cut off inside a
callback of the engine. A second ^C stops waiting for that and raises KeyboardInterrupt at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Final, Self

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Watch:
    """Watches the host for a reason to end the run; a context manager."""

    def __init__(self, interrupt: Callable[[], None], timeout_s: float | None) -> None:
        """`interrupt` makes the machine's run return soon; it is called from a signal handler and
        from a thread."""
        self._interrupt = interrupt
        self.timeout_s = timeout_s
        self.signalled: signal.Signals | None = None
        self.timed_out = False
        self._timer = None if timeout_s is None else threading.Timer(timeout_s, self._on_time)
        self._saved: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._saved[number] = signal.signal(number, self._on_signal)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._saved.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself gave

    @property
    def ended(self) -> bool:
        """Whether there is a reason to end the run."""
        return self.timed_out or self.signalled is not None

    def _on_time(self) -> None:
        self.timed_out = True
        self._interrupt()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signalled is not None:
            raise KeyboardInterrupt
        self.signalled = signal.Signals(number)
        self._interrupt()
