"""From a hypercall instruction to its handler and back: the hottest path of the VMM.

32-bit guests execute `int $0x82` with the number in EAX and arguments in EBX ECX EDX ESI EDI,
64-bit ones `syscall` with RAX and RDI RSI RDX R10 R8; the result replaces the number. Each
hypercall gets, once, a closure per width that reads just the registers it takes from the live
state. 64-bit callers find RCX = RIP and R11 = RFLAGS afterwards, as the instruction leaves them.

`dispatch` is the one place where XenError becomes a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.abi.errors import DomainCrash, XenError
from hypervisor.domain.domain import UPCALL_MASK_OFFSET, DomainState
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import ABSENT, HYPERCALLS, Hypercall, Preempted
from hypervisor.machine.state import HFLAGS, RIP
from hypervisor.probes import Entry, Probes
from hypervisor.traps.entry import TrapEntry
from hypervisor.x86.flags import (
    R8,
    R9,
    R10,
    R11,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RSI,
)

_ENOSYS: Final = -38
_ARGS_32: Final = (RBX, RCX, RDX, RSI, RDI, RBP)
_ARGS_64: Final = (RDI, RSI, RDX, R10, R8, R9)
_INSTRUCTION_BYTES: Final = 2  # int $0x82, syscall
_SLOTS: Final = 64  # numbers beyond are unknown anyway
_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
HYPERCALL_VECTOR: Final = 0x82

Call = Callable[[], "int | None"]


class Dispatcher:
    """Answers the hypercalls of the guest on the CPU."""

    def __init__(self, caller: Caller, entry: TrapEntry, probes: Probes) -> None:
        self._caller = caller
        self._current = caller.current
        self._entry = entry
        self._probes = probes
        state = caller.current.state
        self._state = state
        self._q = state.q
        self._d = state.d
        self._view = caller.current.view
        self.why = ""
        self._calls32 = [self._bind(nr, _ARGS_32, state.d, 2) for nr in range(_SLOTS)]
        self._calls64 = [self._bind(nr, _ARGS_64, state.q, 1) for nr in range(_SLOTS)]

    def _bind(self, nr: int, registers: tuple[int, ...], words: memoryview, stride: int) -> Call:
        """A closure that calls hypercall `nr` with its arguments from the live registers."""
        row = HYPERCALLS.get(nr)
        if row is None:
            return lambda: self._absent(nr)
        caller, handler = self._caller, row.handler
        slots = [register * stride for register in registers[: row.nr_args]]
        match slots:
            case []:
                return lambda: handler(caller)
            case [a]:
                return lambda: handler(caller, words[a])
            case [a, b]:
                return lambda: handler(caller, words[a], words[b])
            case [a, b, c]:
                return lambda: handler(caller, words[a], words[b], words[c])
            case _:
                return lambda: handler(caller, *[words[slot] for slot in slots])

    def _absent(self, nr: int) -> int:
        row = ABSENT.get(nr)
        self.why = row.reason if row else f"hypercall {nr} is unknown"
        return -row.errno if row else _ENOSYS

    # --- ways in -------------------------------------------------------------------------------
    def int82(self) -> None:
        """`int $0x82`: a hypercall from ring 1 of a 32-bit guest, a plain #GP from elsewhere."""
        d = self._d
        vcpu = self._current.vcpu
        if d[HFLAGS] & 3 != 1 or vcpu.width.is_64:
            self._entry.soft_interrupt(HYPERCALL_VECTOR)
            return
        nr = d[0]
        vcpu.recent.append((nr, self._q[RIP]))
        vcpu.stats.hypercalls += 1
        if self._probes.entry is not None:
            self._traced(nr, _ARGS_32)
            return
        try:
            result = self._calls32[nr]() if nr < _SLOTS else _ENOSYS
        except XenError as refusal:
            result = -refusal.errno
        except Preempted as later:
            self._again(_ARGS_32, later.arguments)
            result = None
        except DomainCrash as crash:
            self._entry.crash(str(crash))
            return
        if result is not None:
            self._q[RAX] = result & _M32
        view = self._view
        at = vcpu.vcpu_info_maddr
        if view[at] and not view[at + UPCALL_MASK_OFFSET]:
            self._deliver()

    def syscall(self) -> None:
        """`syscall` from the kernel of a 64-bit guest."""
        q = self._q
        vcpu = self._current.vcpu
        nr = q[RAX]
        rip = q[RIP]
        vcpu.recent.append((nr, rip))
        vcpu.stats.hypercalls += 1
        q[RCX] = rip
        q[R11] = self._state.rflags
        if self._probes.entry is not None:
            self._traced(nr, _ARGS_64)
            return
        try:
            result = self._calls64[nr]() if nr < _SLOTS else _ENOSYS
        except XenError as refusal:
            result = -refusal.errno
        except Preempted as later:
            self._again(_ARGS_64, later.arguments)
            result = None
        except DomainCrash as crash:
            self._entry.crash(str(crash))
            return
        if result is not None:
            q[RAX] = result & _M64
        view = self._view
        at = vcpu.vcpu_info_maddr
        if view[at] and not view[at + UPCALL_MASK_OFFSET]:
            self._deliver()

    def _deliver(self) -> None:
        try:
            self._entry.deliver_events()
        except DomainCrash as crash:
            self._entry.crash(str(crash))

    def _again(self, registers: tuple[int, ...], arguments: tuple[int, ...]) -> None:
        """Let the guest make the same hypercall again, when it has its next turn."""
        state = self._state
        for register, value in zip(registers, arguments, strict=False):
            state.set_gpr(register, value)
        state.rip -= _INSTRUCTION_BYTES
        self._caller.host.preempt(self._current.vcpu)

    # --- by number, for multicalls
    # -----------------------------------------------------------------
    def call(self, nr: int, args: tuple[int, ...]) -> int | None:
        """Hypercall `nr` with arguments from memory; refusals as negative numbers."""
        row: Hypercall | None = HYPERCALLS.get(nr)
        if row is None:
            return self._absent(nr)
        try:
            return row.handler(self._caller, *args[: row.nr_args])
        except XenError as refusal:
            self.why = refusal.why
            return -refusal.errno

    # --- with a probe on it
    # --------------------------------------------------------------------------
    def _traced(self, nr: int, registers: tuple[int, ...]) -> None:
        """The same, telling the probe."""
        current = self._current
        state = self._state
        is_64 = current.vcpu.width.is_64
        row = HYPERCALLS.get(nr)
        args = tuple(state.gpr(register) for register in registers[: row.nr_args if row else 0])
        entry = Entry(
            time_ps=self._entry.now_ps(),
            domid=current.vcpu.domid,
            vcpu_id=current.vcpu.vcpu_id,
            kind="hypercall",
            rip=state.rip,
            number=nr,
            args=args,
            result=None,
            why="",
            checksum=state.checksum(),
        )
        self.why = ""
        try:
            calls = self._calls64 if is_64 else self._calls32
            entry.result = calls[nr]() if nr < _SLOTS else _ENOSYS
        except XenError as refusal:
            self.why = refusal.why
            entry.result = -refusal.errno
        except Preempted as later:
            self._again(registers, later.arguments)
            self.why = "goes on later"
        except DomainCrash as crash:
            self.why = str(crash)
            self._entry.crash(self.why)
        entry.why = self.why
        if entry.result is not None:
            state.set_gpr(RAX, entry.result & (_M64 if is_64 else _M32))
        if current.dom.state is DomainState.RUNNING and current.upcall_due:
            self._deliver()
        if (probe := self._probes.entry) is not None:
            probe(entry)
