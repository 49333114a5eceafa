"""The engine with its state and its block counter: what the parts of a CPU share."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from hypervisor.machine import _engine
from hypervisor.machine._calibrate import (
    Internals,
    context_state_address,
    find_internals,
    verify_context,
)
from hypervisor.machine._engine import Context, Engine, EngineError, error_text
from hypervisor.machine._native import Counter, NativeCounter, PythonCounter, native_code_works
from hypervisor.machine.clock import HostClock, VirtualClock
from hypervisor.machine.exits import Exits
from hypervisor.machine.memory import MachineMemory
from hypervisor.machine.state import CS, RIP, CpuState

_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
NOT_LIVE: Final = f"no live state in this build of unicorn {_engine.VERSION}"


class StateAccess(Enum):
    """How the CPU's state is reached."""

    AUTO = "auto"  # live where the build of the engine is known
    LIVE = "live"  # views of the engine's own structure
    COPIES = "copies"  # copies moved in and out by the public interface


class CpuStats:
    """Counts of what the CPU was made to do."""

    __slots__ = ("runs", "steps", "tlb_flushes", "tlb_page_flushes", "tlb_user_flushes")

    def __init__(self) -> None:
        self.runs = 0
        self.steps = 0
        self.tlb_flushes = 0
        self.tlb_page_flushes = 0
        self.tlb_user_flushes = 0


class Core:
    """One engine over `memory`. Where `context` is set, the state is a copy (see StateAccess)."""

    def __init__(
        self,
        memory: MachineMemory,
        exits: Exits,
        access: StateAccess,
        native_clock: bool | None,
        ps_per_byte: int,
        host_clock: bool,
    ) -> None:
        self.memory = memory
        self.exits = exits
        self.stats = CpuStats()
        self.engine = Engine()
        self.engine.map_memory(0, memory.size_bytes, memory.address)
        self.internals: Internals | None = None
        self.context: Context | None = None
        self.state = self._attach_state(access)
        self.reset_state = self.state.save()
        self.is_native_clock = native_code_works() if native_clock is None else native_clock
        counter: Counter = NativeCounter() if self.is_native_clock else PythonCounter()
        counter.install(self.engine)
        self._counter = counter
        self.words = counter.words
        kind = HostClock if host_clock else VirtualClock
        self.clock: VirtualClock = kind(counter.words, self.state, ps_per_byte)
        self.stop: Callable[[], object] = self.engine.stopper()
        self.is_short = True  # the next entry into the engine: see Engine.start
        self.exited = False  # copies only: an exit ran since this was last cleared
        self._error: BaseException | None = None

    def _attach_state(self, access: StateAccess) -> CpuState:
        engine = self.engine
        engine.write_register(_engine.REG["rax"], 0)  # the engine is made on its first use
        if access is not StateAccess.COPIES:
            self.internals = find_internals(engine)
        if self.internals is not None:
            self.internals.no_exit_request.value = 1
            return CpuState(self.internals.env, self.internals.read_eflags)
        if access is StateAccess.LIVE:
            raise EngineError(NOT_LIVE)
        self.context = engine.new_context()
        verify_context(engine, self.context)
        self.context.save()
        eflags = _engine.REG["eflags"]
        return CpuState(context_state_address(self.context), lambda: engine.read_register(eflags))

    # --- in callbacks ----------------------------------------------------------------------------
    def enter(self) -> None:
        """At the start of a callback: bring a copied state up to date."""
        if self.context is not None:
            self.context.save()
            self.exited = True

    def leave(self) -> None:
        """At its end: hand a copied state back."""
        if self.context is not None:
            self.context.restore()

    def failed(self, error: BaseException) -> None:
        """An exception in a callback: remember it, leave the engine, raise it there."""
        if self._error is None:
            self._error = error
        self.stop()

    @property
    def linear_rip(self) -> int:
        """RIP with the code segment's base."""
        state = self.state
        mask = _M64 if state.is_long_code else _M32
        return state.q[RIP] + state.segment_base(CS) & mask

    # --- from outside ----------------------------------------------------------------------------
    def start(self, count: int = 0) -> None:
        """Enter the engine, once; after `count` instructions, when not 0, it leaves by itself."""
        state, context = self.state, self.context
        self.stats.runs += 1
        if context is not None:
            context.restore()
        state.is_inside = True
        result = self.engine.start(state.rip, count, is_short=self.is_short)
        if context is not None:
            context.save()
        state.is_inside = False
        self.clock.settle()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if result:
            raise EngineError(f"at rip {state.rip:#x}: {error_text(result)}")
