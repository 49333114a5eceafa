"""An x86 system CPU over Unicorn whose exceptions, stops and time are exact.

The owner gives memory and an `Exits` object. `run` executes guest code until a virtual time; at
every trap the owner is called back, in the engine's callback, on the live state, and may change
anything there. It leaves `run` only by asking (`request_stop`), by its deadline, or by a kick from
outside.

How each thing is made exact, and what the engine does by itself, is in docs/machine.md; the facts
are pinned by tests/machine.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Protocol

from hypervisor.machine import _engine
from hypervisor.machine._calibrate import (
    context_state_address,
    find_internals,
    verify_context,
)
from hypervisor.machine._code_watch import CodeWatch
from hypervisor.machine._engine import Engine, EngineError, error_text
from hypervisor.machine._native import (
    COUNTER,
    LIMIT,
    NO_LIMIT,
    SIZE,
    SKIP,
    START,
    NativeCounter,
    PythonCounter,
    native_code_works,
)
from hypervisor.machine._walk import physical
from hypervisor.machine.clock import DEFAULT_PS_PER_BYTE, HostClock, VirtualClock
from hypervisor.machine.memory import MachineMemory
from hypervisor.machine.state import (
    CR2,
    CS,
    DR6,
    ERROR_CODE,
    EXCEPTION_IS_INT,
    OLD_EXCEPTION,
    RIP,
    CpuState,
    Mode,
    initial_state,
)

_PF: Final = 14
_DB: Final = 1
_UD: Final = 6
_GP: Final = 13
_PF_WRITE: Final = 1 << 1
_PF_FETCH: Final = 1 << 4
_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_RAX: Final = 0
_TF: Final = 1 << 8
_NOT_LIVE: Final = f"no live state in this build of unicorn {_engine.VERSION}"
_TRIAL_BYTES: Final = 16  # at the end of memory, for code that is tried out
_NO_MEMORY: Final = 0xFFFF_F000  # a physical address that no machine here has memory at


class StateAccess(Enum):
    """How the CPU's state is reached."""

    AUTO = "auto"  # live where the build of the engine is known
    LIVE = "live"  # views of the engine's own structure
    COPIES = "copies"  # copies moved in and out by the public interface


class Stop(Enum):
    """Why `run` or `step` came back."""

    DEADLINE = "deadline"  # the first instruction boundary at or after the time given
    REQUESTED = "requested"  # request_stop, in an exit
    KICKED = "kicked"  # kick, from outside
    BREAKPOINT = "breakpoint"  # about to execute a marked instruction
    STEPPED = "stepped"  # one instruction was done


class Exits(Protocol):
    """What the owner of a CPU does at its traps. RIP is the guest's to go on from afterwards.

    Exceptions that leave these methods stop the engine and come out of `run`.
    """

    def exception(self, vector: int, error_code: int) -> None:
        """A fault, RIP at its instruction; or #DB after one. #PF has its address in CR2."""

    def soft_interrupt(self, vector: int) -> None:
        """int n, int3 or into; RIP behind it."""

    def syscall(self) -> None:
        """syscall; RIP behind it."""

    def sysenter(self) -> None:
        """sysenter; RIP behind it."""

    def cpuid(self) -> None:
        """cpuid: fill EAX, EBX, ECX, EDX."""

    def rdtsc(self) -> int:
        """rdtsc or rdtscp: the time-stamp counter."""

    def port_in(self, port: int, size: int) -> int:
        """in, where IOPL permits it."""

    def port_out(self, port: int, size: int, value: int) -> None:
        """out, where IOPL permits it."""


class NoExits:
    """A CPU without an owner: every trap is a mistake."""

    def exception(self, vector: int, error_code: int) -> None:
        """Nobody expected it."""
        raise EngineError(f"exception {vector} ({error_code:#x}) on a CPU without an owner")

    def soft_interrupt(self, vector: int) -> None:
        """Nobody expected it."""
        raise EngineError(f"int {vector:#x} on a CPU without an owner")

    def syscall(self) -> None:
        """Nobody expected it."""
        raise EngineError("syscall on a CPU without an owner")

    def sysenter(self) -> None:
        """Nobody expected it."""
        raise EngineError("sysenter on a CPU without an owner")

    def cpuid(self) -> None:
        """All leaves are as the registers were."""

    def rdtsc(self) -> int:
        """Time stands still."""
        return 0

    def port_in(self, port: int, size: int) -> int:
        """Nothing answers."""
        return (1 << 8 * size) - 1

    def port_out(self, port: int, size: int, value: int) -> None:
        """Nothing listens."""


class CpuStats:
    """Counts of what the CPU was made to do."""

    __slots__ = ("runs", "steps", "tlb_flushes", "tlb_page_flushes")

    def __init__(self) -> None:
        self.runs = 0
        self.steps = 0
        self.tlb_flushes = 0
        self.tlb_page_flushes = 0


class Cpu:
    """One CPU of a machine."""

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
        self.memory = memory
        self.exits: Exits = exits or NoExits()
        self._build(access, native_clock, ps_per_byte, host_clock)
        if self.internals is not None and not self._internals_work():
            if access is StateAccess.LIVE:
                raise EngineError(_NOT_LIVE)
            self._engine.close()
            self._build(StateAccess.COPIES, native_clock, ps_per_byte, host_clock)

    def _build(
        self, access: StateAccess, native_clock: bool | None, ps_per_byte: int, host_clock: bool
    ) -> None:
        """Make the engine and all that hangs on it."""
        self.stats = CpuStats()
        self._engine = Engine()
        self._engine.map_memory(0, self.memory.size_bytes, self.memory.address)
        self._attach_state(access)
        self.reset_state = self.state.save()
        self._attach_clock(native_clock, ps_per_byte, host_clock)
        self._stop = self._engine.stopper()
        self._flush = self._engine.tlb_flusher()
        self._error: BaseException | None = None
        self._requested = False
        self._kicked = False
        self._expired = False  # by the host's clock
        self._stepping = False
        self._port_fault = False
        self._retried = (-1, -1)  # linear RIP and counter of a fetch fault tried again, alone
        self._single_due = False  # COPIES: one instruction is to be done alone before going on
        self._by_trap_flag = False  # it is being done
        self._done_alone = False
        self._exited = False  # since this step began
        self._is_pushf = False
        self._dr6_before = 0
        self.soft: list[Callable[[], None]] = [
            lambda vector=vector: self.exits.soft_interrupt(vector)  # type: ignore[misc]
            for vector in range(256)
        ]
        self.watch = CodeWatch(self)
        self._hook()
        self._warm_up()

    # --- construction ----------------------------------------------------------------------------
    def _attach_state(self, access: StateAccess) -> None:
        engine = self._engine
        engine.write_register(_engine.REG["rax"], 0)  # the engine is made on its first use
        self.internals = None if access is StateAccess.COPIES else find_internals(engine)
        if access is StateAccess.LIVE and self.internals is None:
            raise EngineError(_NOT_LIVE)
        self._context = None
        if self.internals is not None:
            self.state = CpuState(self.internals.env, self.internals.read_eflags)
            self.internals.no_exit_request.value = 1
            return
        self._context = engine.new_context()
        verify_context(engine, self._context)
        self._context.save()
        eflags = _engine.REG["eflags"]
        self.state = CpuState(
            context_state_address(self._context), lambda: engine.read_register(eflags)
        )

    def _attach_clock(self, native: bool | None, ps_per_byte: int, host_clock: bool) -> None:
        if native is None:
            native = native_code_works()
        counter = NativeCounter() if native else PythonCounter()
        counter.install(self._engine)
        self._counter = counter
        self._words = counter.words
        self.is_native_clock = native
        kind = HostClock if host_clock else VirtualClock
        self.clock: VirtualClock = kind(counter.words, self.state, ps_per_byte)

    @property
    def access(self) -> StateAccess:
        """How the state is reached: LIVE or COPIES."""
        return StateAccess.LIVE if self.internals is not None else StateAccess.COPIES

    def initial_state(self, mode: Mode) -> bytes:
        """A state in one of the paging modes, in ring 1: see `state.initial_state`."""
        return initial_state(self.reset_state, mode)

    def _hook(self) -> None:
        """Install every callback. SYSCALL's must be the first INSN hook: the engine skips hooks
        behind others while a stop is pending, and the instruction would do nothing."""
        engine = self._engine
        void = _engine.VOID_INSN_FN
        engine.hook(_engine.HOOK_INSN, void(self._syscall_hook()), insn=_engine.INSN_SYSCALL)
        engine.hook(_engine.HOOK_INSN, void(self._sysenter_hook()), insn=_engine.INSN_SYSENTER)
        engine.hook(_engine.HOOK_INTR, _engine.INTR_FN(self._interrupt_hook()))
        engine.hook(_engine.HOOK_INSN_INVALID, _engine.INVALID_FN(self._invalid))
        cpuid = _engine.INT_INSN_FN(self._cpuid)
        engine.hook(_engine.HOOK_INSN, cpuid, insn=_engine.INSN_CPUID)
        for insn in (_engine.INSN_RDTSC, _engine.INSN_RDTSCP):
            engine.hook(_engine.HOOK_INSN, _engine.INT_INSN_FN(self._rdtsc), insn=insn)
        engine.hook(_engine.HOOK_INSN, _engine.IN_FN(self._port_in), insn=_engine.INSN_IN)
        engine.hook(_engine.HOOK_INSN, _engine.OUT_FN(self._port_out), insn=_engine.INSN_OUT)
        engine.hook(_engine.HOOK_EDGE_GENERATED, _engine.EDGE_FN(self.watch.block_translated))

    def _warm_up(self) -> None:
        """Run a jump once: the engine reports new blocks only from the second one on."""
        self._try_out(b"\xeb\xfe", self._let_block_pass)

    def _let_block_pass(self) -> None:
        self._words[SKIP], self._words[LIMIT] = 1, 0
        self._emulate()

    def _internals_work(self) -> bool:
        """Whether the two words that no register shows have the effect they should.

        Of three instructions, a step does one; and a stop asked for at the first waits for the
        end of their block.
        """
        steps: list[int] = []
        begin = self.memory.size_bytes - _TRIAL_BYTES

        def step() -> None:
            self._step_once()
            steps.append(self.state.rip - begin)

        def run_with_stop() -> None:
            function = _engine.BLOCK_FN(lambda uc, vaddr, size, user_data: self._stop())
            hook = self._engine.hook(_engine.HOOK_CODE, function, begin=begin, end=begin)
            self._let_block_pass()
            self._engine.unhook(hook)
            steps.append(self.state.rip - begin)

        code = b"\x90\x90\xeb\x04\x90\x90\x90\x90\xeb\xfe"  # to the jump to itself, by a jump
        self._try_out(code, step)
        self._try_out(code, run_with_stop)
        return steps == [1, 8]

    def _try_out(self, code: bytes, run: Callable[[], None]) -> None:
        """Call `run` with `code` about to be executed, and leave no trace of it."""
        before = self.state.save()
        begin = self.memory.size_bytes - _TRIAL_BYTES
        kept = self.memory.read(begin, len(code))
        self.memory.write(begin, code)
        self.state.load(initial_state(self.reset_state, "pae"))
        self.state.cr0 = 0x11
        self.state.set_segment(CS, 8, 0, _M32, 0x00CF9B00)
        self.state.set_cpl(0)
        self._unpaged_state = self.state.save()
        self.state.rip = begin
        run()
        self.memory.write(begin, kept)
        self.state.load(before)
        self._engine.flush_translations()
        self._words[COUNTER] = 0
        self._words[SIZE] = 0
        self.watch.forget()
        self.stats = CpuStats()

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()

    # --- callbacks
    # ----------------------------------------------------------------------------------
    def _failed(self, error: BaseException) -> None:
        """An exception in a callback: remember it, leave the engine, raise it there."""
        if self._error is None:
            self._error = error
        self._stop()

    def _interrupt_hook(self) -> Callable[[int, int, int], None]:
        if self._context is not None:
            return self._interrupt_on_copies
        d, words, soft = self.state.d, self._words, self.soft

        def interrupt(uc: int, vector: int, user_data: int) -> None:
            try:
                if d[EXCEPTION_IS_INT]:
                    words[SIZE] = 0  # the instruction ends its block
                    soft[vector]()
                else:
                    self._fault(vector)
                if self._stepping:
                    self._stop()
            except BaseException as error:
                self._failed(error)

        return interrupt

    def _interrupt_on_copies(self, uc: int, vector: int, user_data: int) -> None:
        assert self._context is not None
        try:
            self._context.save()
            self._exited = True
            if self._by_trap_flag and self._end_trap_flag(vector):
                pass
            elif self.state.d[EXCEPTION_IS_INT]:
                self._words[SIZE] = 0
                self.soft[vector]()
            else:
                self._fault(vector)
            self._context.restore()
            if self._stepping:
                self._stop()
        except BaseException as error:
            self._failed(error)

    def _end_trap_flag(self, vector: int) -> bool:
        """The instruction done alone is over, by its #DB or by a fault; whether by its #DB.

        Code runs on behind it, so of the instructions that could see the flag it can only be pushf:
        the flag is taken out of what that pushed.
        """
        state = self.state
        self._by_trap_flag = False
        self._words[SKIP] = 1 if self._stepping and vector != _DB else 0
        state.rflags &= ~_TF
        if vector != _DB:
            return False
        self.clock.settle()
        state.q[DR6] = self._dr6_before
        if self._is_pushf:
            top = physical(self.memory, state, state.linear_rsp)
            if top is not None:
                self.memory.view[top + 1] &= ~1
        self._done_alone = True
        self._stop()
        return True

    def _fault(self, vector: int) -> None:
        d = self.state.d
        error_code = d[ERROR_CODE]
        d[OLD_EXCEPTION] = _M32  # or the next page fault arrives as a double fault
        if vector == _PF and self._is_fetch_fault(error_code):
            self.clock.settle_complete()  # nothing of the new block has run
            if self._retry_singly():
                return
        else:
            self.clock.settle()
        self.exits.exception(vector, error_code)

    def _is_fetch_fault(self, error_code: int) -> bool:
        """Whether a page fault came from translating the code at RIP, not from running it."""
        if error_code & _PF_FETCH:
            return True
        if error_code & _PF_WRITE:
            return False
        # without NX the error code does not say
        fault, rip = self.state.q[CR2], self.linear_rip
        if fault == rip:
            return True
        crosses = not fault & 0xFFF and fault >> 12 == (rip >> 12) + 1
        return crosses and not self.clock.bytes_left()

    def _retry_singly(self) -> bool:
        """A block that runs on into a page that cannot be fetched faults before its first
        instruction. Do one instruction alone; the one that really crosses faults again, alone:
        at the same place, with nothing done in between."""
        if self._stepping:
            if self._words[SKIP] != 1:
                return True  # the step's own block was let through: the fault is the next step's
            if self.internals is not None:
                return False  # and it is one instruction
        rip = self.linear_rip
        here = (rip, self._words[COUNTER])
        if self.state.q[CR2] >> 12 == rip >> 12 or self._retried == here:
            return False
        self._retried = here
        if self.internals is not None:
            self.internals.cflags_next_tb.value = 1
        else:
            self._single_due = True
            self._stop()
        return True

    @property
    def linear_rip(self) -> int:
        """RIP with the code segment's base."""
        state = self.state
        return state.q[RIP] + state.segment(CS).base & (_M64 if state.is_long_code else _M32)

    def _invalid(self, uc: int, user_data: int) -> bool:
        """An undefined instruction: #UD, and on."""
        try:
            self._enter()
            self.clock.settle()
            self.exits.exception(_UD, 0)
            self._leave()
            if self._stepping:
                self._stop()
        except BaseException as error:
            self._failed(error)
        return True

    def _enter(self) -> None:
        if self._context is not None:
            self._context.save()
            self._exited = True

    def _leave(self) -> None:
        if self._context is not None:
            self._context.restore()

    def _syscall_hook(self) -> Callable[[int, int], None]:
        state, words = self.state, self._words
        q = state.q
        enter, leave = self._enter, self._leave

        def syscall(uc: int, user_data: int) -> None:
            try:
                enter()
                words[SIZE] = 0
                q[RIP] += 2
                self.exits.syscall()
                q[RIP] = q[RIP] - 2 & _M64  # the engine adds the instruction's length
                leave()
            except BaseException as error:
                self._failed(error)

        return syscall

    def _sysenter_hook(self) -> Callable[[int, int], None]:
        def sysenter(uc: int, user_data: int) -> None:
            try:
                self._enter()
                self._words[SIZE] = 0
                self.state.q[RIP] += 2
                self.exits.sysenter()
                self.state.q[RIP] = self.state.q[RIP] - 2 & _M64
                self._leave()
            except BaseException as error:
                self._failed(error)

        return sysenter

    def _cpuid(self, uc: int, user_data: int) -> int:
        try:
            self._enter()
            self.exits.cpuid()
            self._leave()
        except BaseException as error:
            self._failed(error)
        return 1  # the engine's own answer is skipped

    def _rdtsc(self, uc: int, user_data: int) -> int:
        try:
            self._enter()
            tsc = self.exits.rdtsc()
            self.state.set_gpr(_RAX, tsc & _M32)
            self.state.set_gpr(2, tsc >> 32 & _M32)
            self._leave()
        except BaseException as error:
            self._failed(error)
        return 1

    def _port_in(self, uc: int, port: int, size: int, user_data: int) -> int:
        try:
            self._enter()
            return self.exits.port_in(port, size) & _M32
        except BaseException as error:
            self._failed(error)
        return 0

    def _port_out(self, uc: int, port: int, size: int, value: int, user_data: int) -> None:
        try:
            self._enter()
            self.exits.port_out(port, size, value)
        except BaseException as error:
            self._failed(error)

    # --- running
    # --------------------------------------------------------------------------------------
    def run(self, until_ps: int | None) -> Stop:
        """Execute until the first instruction boundary at `until_ps` or later, or until stopped."""
        if isinstance(self.clock, HostClock):
            return self._run_by_host_clock(self.clock, until_ps)
        words = self._words
        end = NO_LIMIT if until_ps is None else self.clock.counter_at(until_ps)
        self._requested = False
        while True:
            if words[COUNTER] >= end:
                return Stop.DEADLINE
            stop = self._run_blocks(end)
            while stop is None and words[COUNTER] < end:
                # the next block reaches the deadline: find the instruction in it
                stop = self._step_once()
                if stop is Stop.STEPPED:
                    stop = None
                    if end - words[COUNTER] > 64 * 1024:
                        break  # time was changed in an exit: back to full speed
            if stop is not None:
                return stop

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
        self._emulate()
        return self._why_stopped()

    def _why_stopped(self) -> Stop | None:
        if self._requested:
            self._requested = False
            return Stop.REQUESTED
        if self.watch.take_hit():
            return Stop.BREAKPOINT
        if self._kicked:
            self._kicked = False
            return Stop.KICKED
        return None

    @property
    def _is_stopped(self) -> bool:
        return self._requested or self._kicked or self.watch.is_hit

    def step(self) -> Stop:
        """Execute one instruction (one iteration with a repeat prefix), or handle one exit."""
        self._requested = False
        return self._step_once()

    def _step_once(self) -> Stop:
        self.stats.steps += 1
        words = self._words
        words[SKIP] = 1
        words[LIMIT] = 0
        self._stepping = True
        try:
            if self.internals is not None:
                self.internals.cflags_next_tb.value = 1
                self._emulate()
                self.internals.cflags_next_tb.value = _M32
            else:
                self._step_on_copies()
        finally:
            self._stepping = False
        return self._why_stopped() or Stop.STEPPED

    def _step_on_copies(self) -> None:
        state, words = self.state, self._words
        before = state.rip, words[COUNTER]
        self._exited = False
        self._engine.flush_translations()  # blocks made without the counter ignore it
        self._emulate(count=1)
        self._forget_count()
        if (state.rip, words[COUNTER]) != before or self._exited or self._is_stopped:
            return
        # It wrote into its own block: the engine began it again, and that was counted as a second.
        self._prepare_single()
        self._emulate()

    def _forget_count(self) -> None:
        """Have the engine take its count's hooks out now, in a state that is thrown away.

        It does so when it is started next without a count, looking up the places where the hooks
        were in whatever address space that is: what is not mapped there leaves the traces of a
        fault in the state. Started at an address without memory it does that and nothing else.
        """
        if self._context is None or self.memory.size_bytes > _NO_MEMORY:
            return  # a machine that large keeps the traces
        state = self.state
        truth = state.save()
        state.load(self._unpaged_state)
        state.rip = _NO_MEMORY
        self._context.restore()
        self._engine.start(_NO_MEMORY)
        state.load(truth)

    def _emulate(self, count: int = 0) -> None:
        """Enter the engine once, and again where that was for the machine's own sake."""
        engine, state, context = self._engine, self.state, self._context
        while True:
            self._single_due = self._done_alone = False
            if not self._by_trap_flag:
                self._retried = (-1, -1)  # a stop came between: the next try is the first again
            self.stats.runs += 1
            if context is not None:
                context.restore()
            state.is_inside = True
            result = engine.start(state.rip, count)
            if context is not None:
                context.save()
            state.is_inside = False
            self.clock.settle()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if result:
                raise EngineError(f"at rip {state.rip:#x}: {error_text(result)}")
            again = self.watch.take_restart() or (self._done_alone and self._goes_on)
            if self._by_trap_flag:  # stopped before it: begin anew
                self._by_trap_flag = False
                state.rflags &= ~_TF
            if self._port_fault:
                self._port_fault = False
                self.exits.exception(_GP, 0)
                again = not self._stepping
            if self._requested or self._kicked:
                return
            if self._single_due:
                self._prepare_single()
            elif not again:
                return

    @property
    def _goes_on(self) -> bool:
        """Whether neither the step is over nor the limit reached."""
        return not self._stepping and self._words[COUNTER] < self._words[LIMIT]

    def _prepare_single(self) -> None:
        """COPIES: have one instruction done by the trap flag, which makes blocks of one."""
        state = self.state
        maddr = physical(self.memory, state, self.linear_rip)
        self._is_pushf = maddr is not None and 0x9C in self.memory.read(maddr, 2)
        self._dr6_before = state.q[DR6]
        self._by_trap_flag = True
        state.rflags |= _TF
        self._words[SKIP] = 2  # a kick or the deadline comes after it, begun once or twice

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

    # --- asking for things
    # ---------------------------------------------------------------------------
    def request_stop(self) -> None:
        """From inside an exit: `run` returns REQUESTED as soon as the handler has returned."""
        self._requested = True
        if self.state.is_inside:
            self._stop()

    def kick(self) -> None:
        """From any thread or signal handler: `run` returns KICKED before the next block."""
        self._kicked = True
        self._words[LIMIT] = 0

    def position(self, vaddr: int) -> int:
        """What the counter is at an instruction of the block that runs, before it is executed."""
        words = self._words
        return words[COUNTER] - words[SIZE] + vaddr - words[START]

    def is_begun_again(self, start: int, size: int) -> bool:
        """Whether a new block is an instruction that wrote into the block it is in: see _native."""
        words = self._words
        return size < words[START] + words[SIZE] - start <= words[SIZE]

    def port_fault(self) -> None:
        """From the code watch: the instruction at RIP is a port access that faults."""
        self._port_fault = True
        self._stop()

    def stop_engine(self) -> None:
        """From the code watch: leave the engine, to come back at once."""
        self._stop()

    def flush_tlb(self) -> None:
        """Forget all translations of addresses."""
        self.stats.tlb_flushes += 1
        self._flush()

    def flush_tlb_page(self, vaddr: int) -> None:
        """Forget the translation of one page."""
        self.stats.tlb_page_flushes += 1
        if self.internals is None:
            self._flush()
        else:
            self.internals.flush_page(vaddr & ~0xFFF)

    def flush_tlb_user(self) -> None:
        """Forget translations made at CPL 3."""
        self.stats.tlb_flushes += 1
        if self.internals is None:
            self._flush()
        else:
            self.internals.flush_user()

    @property
    def code_frames(self) -> bytearray:
        """Per frame: nonzero when code translated from it may exist."""
        return self.watch.code_frames

    def code_written(self, maddr: int, size: int) -> None:
        """Whoever wrote guest memory other than through guest code says so here."""
        frames = self.watch.code_frames
        for mfn in range(maddr >> 12, (maddr + size - 1 >> 12) + 1):
            if frames[mfn]:
                self._drop_frame(mfn)

    def _drop_frame(self, mfn: int) -> None:
        if self.internals is None:
            self.drop_code()
            return
        self.internals.drop_physical(mfn << 12, (mfn << 12) + 4096)
        self.watch.code_frames[mfn] = 0

    def drop_code(self) -> None:
        """Forget all translated code. Costs time and nothing else."""
        self._engine.flush_translations()
        self.watch.forget()

    def add_breakpoint(self, vaddr: int) -> None:
        """`run` returns BREAKPOINT when it is about to execute the instruction at `vaddr`."""
        self.watch.add_breakpoint(vaddr)

    def remove_breakpoint(self, vaddr: int) -> None:
        """The opposite."""
        self.watch.remove_breakpoint(vaddr)

    @property
    def engine(self) -> Any:
        """The engine, for the code watch."""
        return self._engine
