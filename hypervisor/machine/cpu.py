"""An x86 system CPU over Unicorn whose exceptions, stops and time are exact.

The owner gives memory and an `Exits` object. `run` executes guest code until a virtual time; at
every trap the owner is called back, in the engine's callback, on the live state, and may change
anything there. It leaves `run` only by asking (`request_stop`), by its deadline, or by a kick from
outside.

How each thing is made exact, and what the engine does by itself, is in docs/machine.md; the facts
are pinned by tests/machine.
"""

from __future__ import annotations

import ctypes
import mmap
from enum import Enum
from typing import Final, NamedTuple

from hypervisor.machine import _trial
from hypervisor.machine._alone import Alone
from hypervisor.machine._callbacks import Callbacks
from hypervisor.machine._code_watch import CodeWatch
from hypervisor.machine._core import NOT_LIVE, Core, CpuStats, StateAccess
from hypervisor.machine._direct import INT_REGISTERS, SYSCALL_REGISTERS
from hypervisor.machine._engine import EngineError
from hypervisor.machine._native import COUNTER, LIMIT, NO_LIMIT, SKIP, machine_code
from hypervisor.machine.calls import CallLog, Calls
from hypervisor.machine.clock import DEFAULT_PS_PER_BYTE, HostClock, VirtualClock
from hypervisor.machine.exits import Exits, NoExits
from hypervisor.machine.memory import MachineMemory
from hypervisor.machine.state import CpuState, Mode, initial_state

__all__ = ["Cpu", "CpuStats", "ForMachineCode", "StateAccess", "Stop"]

_GP: Final = 13
_TURN_BYTES: Final = 1 << 24  # of guest code, then Python's other threads have a turn: some 10 ms
_FAR_BYTES: Final = 64 * 1024  # from a deadline: full speed is worth an entry


class Stop(Enum):
    """Why `run` or `step` came back."""

    DEADLINE = "deadline"  # the first instruction boundary at or after the time given
    REQUESTED = "requested"  # request_stop, in an exit
    KICKED = "kicked"  # kick, from outside
    BREAKPOINT = "breakpoint"  # about to execute a marked instruction
    STEPPED = "stepped"  # one instruction was done


class ForMachineCode(NamedTuple):
    """Addresses that machine code needs."""

    env: int  # CPUX86State: see state.py
    counter: int  # the words of the block counter: see _native.py
    read_eflags: int  # a C function of env: EFLAGS, worked out


class Cpu:
    """One CPU of a machine.

    `native_clock` None means machine code where the host can (see _native), `ps_per_byte` is the
    virtual time that a byte of guest code takes, `host_clock` makes time the host's.
    """

    def __init__(
        self,
        memory: MachineMemory,
        exits: Exits | None = None,
        *,
        access: StateAccess = StateAccess.AUTO,
        native_clock: bool | None = None,
        ps_per_byte: int = DEFAULT_PS_PER_BYTE,
        host_clock: bool = False,
    ) -> None:
        def build(access: StateAccess) -> Core:
            owner = exits or NoExits()
            return Core(memory, owner, access, native_clock, ps_per_byte, host_clock)

        core = build(access)
        if core.internals is not None and not self._assemble(core):
            core.engine.close()
            if access is StateAccess.LIVE:
                raise EngineError(NOT_LIVE)
            core = build(StateAccess.COPIES)
        if core.internals is None:
            self._assemble(core)
        self._flush = core.engine.tlb_flusher()
        self._requested = False
        self._end = NO_LIMIT  # where the present `run` ends, as the counter says
        self._kicked = False
        self._expired = False  # by the host's clock

    def _assemble(self, core: Core) -> bool:
        """Put the parts together around `core`; whether the engine is what it seemed to be."""
        self._core = core
        self._words = core.words
        self.memory = core.memory
        self.state: CpuState = core.state
        self.clock: VirtualClock = core.clock
        unpaged = _trial.unpaged_state(core)
        self._watch = CodeWatch(core)
        self._alone = Alone(core, unpaged)
        self._callbacks = Callbacks(core, self._alone, self._watch)
        _trial.warm_up(core, unpaged)
        works = core.internals is None or _trial.internals_work(core, self._alone, unpaged)
        self._watch.forget()
        return works

    @property
    def exits(self) -> Exits:
        """The owner."""
        return self._core.exits

    @exits.setter
    def exits(self, exits: Exits) -> None:
        self._core.exits = exits

    def serve_int(self, vector: int, calls: Calls) -> None:
        """Let `int vector` be a call of `calls`, by the shortest way, where it is one.

        For one vector at a time, the one that has to be fast. Arguments are in EBX, ECX, EDX, ESI
        and EDI, RIP is behind the instruction.
        """
        _require(calls, INT_REGISTERS, 32)
        self._callbacks.serve_int(vector, calls)

    def serve_syscall(self, calls: Calls) -> None:
        """The same for syscall; arguments are in RDI, RSI, RDX, R10 and R8."""
        _require(calls, SYSCALL_REGISTERS, 64)
        self._callbacks.serve_syscall(calls)

    def serve_caller(self, log: CallLog, attention_maddr: int) -> None:
        """Who calls from now on: where its calls are noted, and where its two bytes are (Calls)."""
        self._callbacks.serve_caller(log, attention_maddr)

    @property
    def for_machine_code(self) -> ForMachineCode | None:
        """Where machine code finds the CPU; None where none is called (see `ask_first`)."""
        core = self._core
        if core.internals is None or not core.is_native_clock:
            return None
        words = ctypes.addressof(ctypes.c_char.from_buffer(core.words))
        return ForMachineCode(core.internals.env, words, core.internals.read_eflags_address)

    def executable(self, code: bytes) -> mmap.mmap:
        """Memory that the host executes, with `code` at its start."""
        return machine_code(code)

    def ask_first(self, interrupt: int, syscall: int, invalid: int) -> tuple[int, int, int]:
        """Call machine code at every exception, `int n` and syscall that is no call (serve_int).

        `interrupt` is a C function (engine, vector, data), at a fault's instruction or behind
        `int n`, as `exception_is_int` says; nothing is settled yet. `syscall` takes no arguments
        and comes behind the instruction. `invalid` is a C function (engine, data) at an undefined
        instruction, whose result is true. The result are the functions that they are to call in
        their turn, with the same arguments, where they have no answer: at every step, for one.
        """
        before = self._callbacks.ask_first(interrupt, syscall, invalid)
        assert before is not None, "nothing calls machine code: see for_machine_code"
        return before

    def failed(self, error: BaseException) -> None:
        """From a function of those, which must not raise: `run` will raise `error`."""
        self._core.failed(error)

    @property
    def stats(self) -> CpuStats:
        """What it was made to do so far."""
        return self._core.stats

    @property
    def access(self) -> StateAccess:
        """How the state is reached: LIVE or COPIES."""
        return StateAccess.LIVE if self._core.internals is not None else StateAccess.COPIES

    @property
    def is_native_clock(self) -> bool:
        """Whether blocks are counted by machine code."""
        return self._core.is_native_clock

    def initial_state(self, mode: Mode) -> bytes:
        """A state in one of the paging modes, in ring 1: see `state.initial_state`."""
        return initial_state(self._core.reset_state, mode)

    def close(self) -> None:
        """Free the engine."""
        self._core.engine.close()

    # --- running ---------------------------------------------------------------------------------
    def run(self, until_ps: int | None) -> Stop:
        """Execute until the first instruction boundary at `until_ps` or later, or until stopped."""
        if isinstance(self.clock, HostClock):
            return self._run_by_host_clock(self.clock, until_ps)
        words = self._words
        self._end = NO_LIMIT if until_ps is None else self.clock.counter_at(until_ps)
        self._requested = False
        while True:
            if words[COUNTER] >= self._end:
                return Stop.DEADLINE
            turn_end = min(self._end, words[COUNTER] + _TURN_BYTES)
            stop = self._run_blocks(turn_end)
            if stop is None and turn_end < self._end:
                continue
            while stop is None and words[COUNTER] < self._end:
                # the next block reaches the deadline: find the instruction in it
                stop = self._step_once()
                if stop is Stop.STEPPED:
                    stop = None
                    if self._end - words[COUNTER] > _FAR_BYTES:
                        break  # time was changed in an exit
            if stop is not None:
                return stop

    def step(self) -> Stop:
        """Execute one instruction (one iteration with a repeat prefix), or handle one exit."""
        self._requested = False
        return self._step_once()

    def _run_blocks(self, end: int) -> Stop | None:
        """Execute whole blocks while each ends before `end`; None when the next one would not."""
        words = self._words
        words[SKIP] = 0
        words[LIMIT] = end
        if self._kicked:
            self._kicked = False
            return Stop.KICKED
        if self._expired:
            return None
        self._core.is_short = end - words[COUNTER] <= _TURN_BYTES
        self._emulate(0)
        return self._why_stopped()

    def _step_once(self) -> Stop:
        self._core.is_short = True
        self._alone.step(self._emulate)
        return self._why_stopped() or Stop.STEPPED

    def _run_by_host_clock(self, clock: HostClock, until_ps: int | None) -> Stop:
        """As `run`, the deadline being kept by the clock's alarm."""
        self._requested = self._expired = False
        if until_ps is None:
            return self._run_blocks(NO_LIMIT) or Stop.DEADLINE
        if until_ps <= clock.now_ps():
            return Stop.DEADLINE
        with clock.alarm(until_ps, self._expire):
            return self._run_blocks(NO_LIMIT) or Stop.DEADLINE

    def _expire(self) -> None:
        self._expired = True
        self._words[LIMIT] = 0

    def _emulate(self, count: int) -> bool:
        """Enter the engine, and again where that was for the machine's own sake; whether something
        asked for a stop. `count` is as for `Core.start`."""
        core, alone, watch = self._core, self._alone, self._watch
        while True:
            alone.before_engine()
            core.start(count)
            again = alone.after_engine()
            if watch.take_restart():
                again = True
            if watch.take_port_fault():
                core.exits.exception(_GP, 0)
                again = not alone.stepping
            if self._requested or self._kicked or watch.is_hit:
                return True
            if alone.due:
                alone.set_trap_flag()
            elif not again:
                return False

    def _why_stopped(self) -> Stop | None:
        if self._requested:
            self._requested = False
            return Stop.REQUESTED
        if self._watch.take_hit():
            return Stop.BREAKPOINT
        if self._kicked:
            self._kicked = False
            return Stop.KICKED
        return None

    # --- stopping --------------------------------------------------------------------------------
    def request_stop(self) -> None:
        """From inside an exit: `run` returns REQUESTED as soon as the handler has returned."""
        self._requested = True
        if self.state.is_inside:
            self._core.stop()

    def bring_forward(self, until_ps: int) -> None:
        """From inside an exit: the `run` that led there ends at `until_ps`, if not before.

        Where that is all that changes it costs less than to stop and to begin anew.
        """
        if isinstance(self.clock, HostClock):
            self.request_stop()
            return
        end = self.clock.counter_at(until_ps)
        self._end = min(self._end, end)
        self._words[LIMIT] = min(self._words[LIMIT], end)  # 0, a step's, stays

    def kick(self) -> None:
        """From any thread or signal handler: `run` returns KICKED before the next block."""
        self._kicked = True
        self._words[LIMIT] = 0

    def add_breakpoint(self, vaddr: int) -> None:
        """`run` returns BREAKPOINT when it is about to execute the instruction at `vaddr`."""
        if self._watch.add_breakpoint(vaddr):
            self.drop_code()

    def remove_breakpoint(self, vaddr: int) -> None:
        """The opposite."""
        if self._watch.remove_breakpoint(vaddr):
            self.drop_code()

    # --- the TLB ---------------------------------------------------------------------------------
    def flush_tlb(self) -> None:
        """Forget all translations of addresses."""
        self.stats.tlb_flushes += 1
        self._flush()

    def flush_tlb_page(self, vaddr: int) -> None:
        """Forget the translation of one page."""
        core = self._core
        core.stats.tlb_page_flushes += 1
        if core.internals is None:
            self._flush()
        else:
            core.internals.flush_page(vaddr & ~0xFFF)

    def flush_tlb_user(self) -> None:
        """Forget translations made at CPL 3."""
        core = self._core
        core.stats.tlb_user_flushes += 1
        if core.internals is None:
            self._flush()
        else:
            core.internals.flush_user()

    # --- translated code -------------------------------------------------------------------------
    @property
    def code_frames(self) -> bytearray:
        """Per frame: nonzero when code translated from it may exist."""
        return self._watch.code_frames

    def code_written(self, maddr: int, size: int) -> None:
        """Whoever wrote guest memory other than through guest code says so here."""
        frames = self._watch.code_frames
        for mfn in range(maddr >> 12, (maddr + size - 1 >> 12) + 1):
            if frames[mfn]:
                self._drop_frame(mfn)

    def _drop_frame(self, mfn: int) -> None:
        internals = self._core.internals
        if internals is None:
            self.drop_code()
            return
        internals.drop_physical(mfn << 12, (mfn << 12) + 4096)
        self._watch.code_frames[mfn] = 0

    def drop_code(self) -> None:
        """Forget all translated code. Costs time and nothing else."""
        self._core.engine.flush_translations()
        self._watch.forget()


def _require(calls: Calls, registers: tuple[int, ...], bits: int) -> None:
    if calls.registers != registers or calls.bits != bits:
        raise ValueError(f"calls by this instruction have {bits} bits and registers {registers}")
