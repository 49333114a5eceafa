"""What a trap reads and writes of a vCPU, in memory that machine code can use too.

A trap's whole way is a few dozen loads and stores, and the shortest way for it is machine code
(traps.fast). So the numbers that it needs lie in plain words instead of attributes, and are
attributes by properties: whoever writes one, machine code or Python, the other sees it at once.
There is nothing to keep in step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Self, SupportsIndex, overload

NR_VECTORS: Final = 256
GDT_FRAMES: Final = 14  # a guest's part of its GDT: FIRST_RESERVED_GDT_PAGE

# --- words, of 64 bits ----------------------------------------------------------------------------
KERNEL_MODE: Final = 0  # 64-bit: in the guest's kernel, as Xen keeps track of it
GS_BASE_USER: Final = 1  # 64-bit: the GS base that is not in the CPU
ROOT_MFN: Final = 2  # the kernel's top-level table
USER_ROOT_MFN: Final = 3  # 64-bit: the user's, 0 when none
KERNEL_SS: Final = 4
KERNEL_SP: Final = 5
EXCEPTIONS: Final = 6  # how many were bounced into the guest
NR_GDT_ENTRIES: Final = 7
GDT_MFNS: Final = 8  # GDT_FRAMES words
NMI_MASKED: Final = 22  # the handler of an NMI runs, until an iret
GATES: Final = 32  # by vector; then the callbacks that are entered like gates
SYSCALL_GATE: Final = NR_VECTORS
SYSCALL32_GATE: Final = NR_VECTORS + 1
SYSENTER_GATE: Final = NR_VECTORS + 2
_NR_GATES: Final = NR_VECTORS + 3
#: A gate is two words: the address, and CS with the DPL and whether events are masked above it.
GATE_WORDS: Final = 2
GATE_DPL_SHIFT: Final = 32
GATE_MASKS_SHIFT: Final = 40
_WORDS: Final = GATES + GATE_WORDS * _NR_GATES
_CS: Final = 0xFFFF_FFFF


@dataclass(slots=True)
class TrapGate:
    """One row of a guest's trap table (struct trap_info)."""

    cs: int = 0
    address: int = 0  # 0: no handler
    dpl: int = 0
    masks_events: bool = False


@dataclass(slots=True)
class Callback:
    """Where Xen enters a guest outside of its trap table (CALLBACKTYPE_*)."""

    cs: int = 0
    address: int = 0  # 0: none
    masks_events: bool = False


class TrapState:
    """The words of one vCPU, all zero but that it is in its kernel."""

    __slots__ = ("_data", "words")

    def __init__(self) -> None:
        self._data = (ctypes.c_uint64 * _WORDS)()
        self.words = memoryview(self._data).cast("B").cast("Q")
        self.words[KERNEL_MODE] = 1

    @property
    def address(self) -> int:
        """Where they are, for machine code."""
        return ctypes.addressof(self._data)

    def gate(self, index: int) -> TrapGate:
        """The gate at `index`: a copy, to change it is `set_gate`'s."""
        at = GATES + GATE_WORDS * index
        address, rest = self.words[at], self.words[at + 1]
        dpl, masks = rest >> GATE_DPL_SHIFT & 3, rest >> GATE_MASKS_SHIFT
        return TrapGate(rest & _CS, address, dpl, bool(masks))

    def set_gate(self, index: int, gate: TrapGate | Callback) -> None:
        """Let `gate` be the one at `index`."""
        at = GATES + GATE_WORDS * index
        dpl = gate.dpl if isinstance(gate, TrapGate) else 0
        self.words[at] = gate.address
        self.words[at + 1] = (
            gate.cs | dpl << GATE_DPL_SHIFT | int(gate.masks_events) << GATE_MASKS_SHIFT
        )

    def callback(self, index: int) -> Callback:
        """The gate of a callback."""
        gate = self.gate(index)
        return Callback(gate.cs, gate.address, gate.masks_events)

    def set_gdt(self, mfns: Iterable[int], entries: int) -> None:
        """Note the frames of the guest's part of the GDT."""
        self.words[NR_GDT_ENTRIES] = entries
        for idx, mfn in enumerate(mfns):
            self.words[GDT_MFNS + idx] = mfn

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._like(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_bytes, (self.words.tobytes(),)

    def _like(self, other: TrapState) -> Self:
        copy = type(self)()
        copy.words[:] = other.words
        return copy


def _from_bytes(raw: bytes) -> TrapState:
    state = TrapState()
    state.words.cast("B")[:] = raw
    return state


class GateTable:
    """A vCPU's trap table, as a list of 256 gates."""

    __slots__ = ("_state",)

    def __init__(self, state: TrapState) -> None:
        self._state = state

    def __len__(self) -> int:
        return NR_VECTORS

    def __iter__(self) -> Iterator[TrapGate]:
        return (self._state.gate(vector) for vector in range(NR_VECTORS))

    def __getitem__(self, vector: int) -> TrapGate:
        return self._state.gate(range(NR_VECTORS)[vector])

    @overload
    def __setitem__(self, vector: SupportsIndex, gate: TrapGate) -> None: ...
    @overload
    def __setitem__(self, vector: slice, gate: Iterable[TrapGate]) -> None: ...
    def __setitem__(
        self, vector: SupportsIndex | slice, gate: TrapGate | Iterable[TrapGate]
    ) -> None:
        if isinstance(gate, TrapGate):
            assert not isinstance(vector, slice)
            self._state.set_gate(range(NR_VECTORS)[vector], gate)
        else:
            assert isinstance(vector, slice)
            for one, new in zip(range(NR_VECTORS)[vector], gate, strict=True):
                self._state.set_gate(one, new)
