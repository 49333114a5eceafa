"""Machine memory: one anonymous mapping, shared by the engine and Python.

The engine is given the mapping's address and runs on it; Python reads and writes the same bytes
through memoryviews (0.1 us a word, where the engine's copying interface takes 1 us). Whoever writes
code this way tells the CPU (`Cpu.code_written`).
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

PAGE_SIZE: Final = 4096


class MachineMemory:
    """Physical memory from address 0 to `size_bytes`, all zero at first."""

    def __init__(self, size_bytes: int) -> None:
        if size_bytes <= 0 or size_bytes % PAGE_SIZE:
            raise ValueError(f"memory of {size_bytes} bytes: a multiple of {PAGE_SIZE} is needed")
        self.size_bytes = size_bytes
        self.nr_frames = size_bytes // PAGE_SIZE
        self.buffer = mmap.mmap(-1, size_bytes)
        self._anchor: ctypes.c_char | None = ctypes.c_char.from_buffer(self.buffer)
        self.address = ctypes.addressof(self._anchor)
        self.view = memoryview(self.buffer)
        self.u16 = self.view.cast("H")
        self.u32 = self.view.cast("I")
        self.u64 = self.view.cast("Q")

    def read(self, maddr: int, size: int) -> bytes:
        """`size` bytes at machine address `maddr`."""
        return bytes(self.view[maddr : maddr + size])

    def write(self, maddr: int, data: bytes | memoryview) -> None:
        """Put `data` at `maddr`. Translated code is not dropped: see Cpu.code_written."""
        self.view[maddr : maddr + len(data)] = data

    def frame(self, mfn: int) -> memoryview:
        """The 4096 bytes of one frame, writable."""
        return self.view[mfn * PAGE_SIZE : (mfn + 1) * PAGE_SIZE]
