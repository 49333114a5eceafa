"""The user's terminal as a guest's console.

Input: the terminal stops interpreting keys, so ^C, tab and arrows reach the guest, and `^]` alone
is ours. A thread reads, because the machine's run occupies the main one; it only puts bytes into a
queue and asks the machine to come out of its run. Output stays processed: a guest that ends its
lines with a bare newline still gets straight lines.
"""

from __future__ import annotations

import os
import queue
import select
import termios
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

ESCAPE: Final = b"\x1d"  # ^], as in `xl console`, virsh and telnet


class Terminal:
    """A terminal attached to a console. Use as a context manager: it restores the settings."""

    def __init__(self, fd: int, wake: Callable[[], None]) -> None:
        """`wake` is called from the reader's thread whenever input or the escape has come."""
        self.fd = fd
        self.wake = wake
        self.left = False  # the user typed ^], or the terminal went away
        self._input: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._read, name="ring1 terminal", daemon=True)
        self._saved = termios.tcgetattr(fd)

    def __enter__(self) -> Self:
        termios.tcsetattr(self.fd, termios.TCSADRAIN, raw_input(self._saved))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.write(self._stop_write, b"x")
        self._thread.join()
        os.close(self._stop_read)
        os.close(self._stop_write)
        termios.tcsetattr(self.fd, termios.TCSADRAIN, self._saved)

    def _read(self) -> None:
        while not self.left:
            ready, _, _ = select.select([self.fd, self._stop_read], [], [])
            if self._stop_read in ready:
                return
            self._take(self._read_available())

    def _read_available(self) -> bytes:
        try:
            return os.read(self.fd, 4096)
        except OSError:  # the terminal was closed under us (EIO)
            return b""

    def _take(self, data: bytes) -> None:
        typed, escape, _ = data.partition(ESCAPE)
        self.left = bool(escape) or not data
        if typed or self.left:
            self._input.put(typed)
            self.wake()

    def typed(self) -> bytes:
        """All that was typed since the last call."""
        data = bytearray()
        while not self._input.empty():
            data += self._input.get()
        return bytes(data)

    def wait(self, timeout_s: float | None) -> bytes:
        """Like `typed`, but waits for input. Empty when the time has passed, or on the escape."""
        try:
            first = self._input.get(timeout=timeout_s)
        except queue.Empty:
            return b""
        return first + self.typed()


def raw_input(settings: list[int | list[bytes | int]]) -> list[int | list[bytes | int]]:
    """Settings (termios(3)) that hand over every key at once, and leave output as it is."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = settings
    assert isinstance(iflag, int)
    assert isinstance(lflag, int)
    assert isinstance(characters, list)
    iflag &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    lflag &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    characters = list(characters)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]
