"""Functions that guest code calls by one instruction, and a log of the calls.

A paravirtual guest's commonest trap is a function call in disguise: RAX says which function, some
registers are its arguments, and RAX gets the result. Said so, it can take the shortest way there is
(see _direct); where the host runs no machine code the same is done in Python, here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hypervisor.machine.state import HFLAGS, RIP, CpuState

LOG_ENTRIES: Final = 16
_RAX: Final = 0


class CallLog:
    """How many calls there were, and of the latest ones RAX and the RIP behind the instruction.

    Memory that machine code writes too: the count, then pairs in turn, all 64-bit words.
    """

    __slots__ = ("_data", "_words")

    def __init__(self) -> None:
        self._data = (ctypes.c_uint64 * (1 + 2 * LOG_ENTRIES))()
        self._words = memoryview(self._data).cast("B").cast("Q")

    @property
    def address(self) -> int:
        """Where it is, for machine code."""
        return ctypes.addressof(self._data)

    @property
    def count(self) -> int:
        """All calls so far."""
        return self._words[0]

    def note(self, rax: int, rip: int) -> None:
        """One more call."""
        at = 1 + 2 * (self._words[0] % LOG_ENTRIES)
        self._words[0] += 1
        self._words[at] = rax
        self._words[at + 1] = rip

    def latest(self) -> list[tuple[int, int]]:
        """(RAX, RIP) of the latest, the last one last."""
        count = self._words[0]
        places = (1 + 2 * (nr % LOG_ENTRIES) for nr in range(max(0, count - LOG_ENTRIES), count))
        return [(self._words[at], self._words[at + 1]) for at in places]


@dataclass(frozen=True, slots=True)
class Function:
    """What one value of RAX stands for. It must not raise: see Cpu.failed.

    `ask_first` may put machine code in its place, where that is called at all: it gets the address
    of the function in C, which is to be called where the machine code has no answer.
    """

    function: Callable[..., int]
    nr_args: int
    ask_first: Callable[[int], int] | None = None


@dataclass(frozen=True, slots=True)
class Calls:
    """A table of functions by RAX; `other` is for the values beyond it and for its gaps.

    It is a call if `hflags & mask == value` (see state), else an ordinary trap. Registers hold
    `bits` bits, 32 or 64, as do the results. `registers` are the arguments'. After a call, two
    bytes of the caller's are looked at: if the first is set and the second is not, something waits
    for it, and `attend` is called.
    """

    table: tuple[Function | None, ...]
    other: Function
    registers: tuple[int, ...]
    bits: int
    mask: int
    value: int
    attend: Callable[[], None]

    def serves(self, state: CpuState) -> bool:
        """Whether the instruction just executed is a call."""
        return state.d[HFLAGS] & self.mask == self.value

    def call(self, state: CpuState, log: CallLog, attention: memoryview) -> None:
        """Do it, for a caller with `log` and the two bytes `attention`."""
        mask = (1 << self.bits) - 1
        number = state.q[_RAX] & mask
        log.note(number, state.q[RIP])
        entry = self.table[number] if number < len(self.table) else None
        entry = entry or self.other
        args = [state.q[register] & mask for register in self.registers[: entry.nr_args]]
        state.q[_RAX] = entry.function(*args) & mask
        if attention[0] and not attention[1]:
            self.attend()
