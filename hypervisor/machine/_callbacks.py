"""What the engine calls at traps: each brings the state up to date and asks the owner.

The hot path is not here but in _direct, where the host runs machine code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

from hypervisor.machine import _engine
from hypervisor.machine._alone import Alone
from hypervisor.machine._code_watch import CodeWatch
from hypervisor.machine._core import Core
from hypervisor.machine._direct import Gate, int_gate, syscall_gate
from hypervisor.machine._native import END
from hypervisor.machine.calls import CallLog, Calls
from hypervisor.machine.state import CR2, ERROR_CODE, EXCEPTION_IS_INT, OLD_EXCEPTION, RIP

_UD: Final = 6
_PF: Final = 14
_PF_WRITE: Final = 1 << 1
_PF_FETCH: Final = 1 << 4
_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_RAX: Final = 0
_RCX: Final = 1
_RDX: Final = 2
_R11: Final = 11


class Callbacks:
    """The engine's hooks of one CPU."""

    def __init__(self, core: Core, alone: Alone, watch: CodeWatch) -> None:
        self._core = core
        self._alone = alone
        self._calls: dict[int, Calls] = {}  # by vector
        self._syscall_calls: Calls | None = None
        self._log = CallLog()
        self._nothing = ctypes.c_uint16(0)  # that waits, for who never said who calls
        self._attention = memoryview(self._nothing).cast("B")
        self._int_gate: Gate | None = None
        self._syscall_gate: Gate | None = None
        self._invalid_function = _engine.INVALID_FN(self._invalid)
        self._invalid_hook = 0
        self._install(watch)
        self._tell_gates(ctypes.addressof(self._nothing))

    def serve_int(self, vector: int, calls: Calls) -> None:
        """See Cpu.serve_int."""
        self._calls[vector] = calls
        if self._int_gate is not None:
            self._int_gate.lead_to(calls, vector)

    def serve_syscall(self, calls: Calls) -> None:
        """See Cpu.serve_syscall."""
        self._syscall_calls = calls
        if self._syscall_gate is not None:
            self._syscall_gate.lead_to(calls)

    def serve_caller(self, log: CallLog, attention_maddr: int) -> None:
        """See Cpu.serve_caller."""
        memory = self._core.memory
        self._log = log
        self._attention = memory.view[attention_maddr : attention_maddr + 2]
        self._tell_gates(memory.address + attention_maddr)

    def ask_first(self, interrupt: int, syscall: int, invalid: int) -> tuple[int, int, int] | None:
        """See Cpu.ask_first."""
        if self._int_gate is None or self._syscall_gate is None:
            return None
        engine = self._core.engine
        engine.unhook(self._invalid_hook)
        self._invalid_hook = engine.hook(_engine.HOOK_INSN_INVALID, ctypes.c_void_p(invalid))
        return (
            self._int_gate.ask_first(interrupt),
            self._syscall_gate.ask_first(syscall),
            ctypes.cast(self._invalid_function, ctypes.c_void_p).value or 0,
        )

    def _tell_gates(self, attention: int) -> None:
        for gate in (self._int_gate, self._syscall_gate):
            if gate is not None:
                gate.serve_caller(self._log, attention)

    def _install(self, watch: CodeWatch) -> None:
        """Install every callback. SYSCALL's must be the first INSN hook: the engine skips hooks
        behind others while a stop is pending, and the instruction would do nothing."""
        core, engine = self._core, self._core.engine
        void = _engine.VOID_INSN_FN
        interrupt = _engine.INTR_FN(self._interrupt_hook())
        if core.internals is not None and core.is_native_clock:
            gate = self._syscall_gate = syscall_gate(core, _engine.NO_ARGS_FN(self._other_syscall))
            code, data = gate.function, gate.user_data
            engine.hook(_engine.HOOK_INSN, code, insn=_engine.INSN_SYSCALL, user_data=data)
            gate = self._int_gate = int_gate(core, interrupt)
            engine.hook(_engine.HOOK_INTR, gate.function, user_data=gate.user_data)
        else:
            syscall = void(self._syscall_hook())
            engine.hook(_engine.HOOK_INSN, syscall, insn=_engine.INSN_SYSCALL)
            engine.hook(_engine.HOOK_INTR, interrupt)
        engine.hook(_engine.HOOK_INSN, void(self._sysenter), insn=_engine.INSN_SYSENTER)
        self._invalid_hook = engine.hook(_engine.HOOK_INSN_INVALID, self._invalid_function)
        cpuid = _engine.INT_INSN_FN(self._cpuid)
        engine.hook(_engine.HOOK_INSN, cpuid, insn=_engine.INSN_CPUID)
        for insn in (_engine.INSN_RDTSC, _engine.INSN_RDTSCP):
            engine.hook(_engine.HOOK_INSN, _engine.INT_INSN_FN(self._rdtsc), insn=insn)
        engine.hook(_engine.HOOK_INSN, _engine.IN_FN(self._port_in), insn=_engine.INSN_IN)
        engine.hook(_engine.HOOK_INSN, _engine.OUT_FN(self._port_out), insn=_engine.INSN_OUT)
        engine.hook(_engine.HOOK_EDGE_GENERATED, _engine.EDGE_FN(watch.block_translated))

    # --- exceptions and int n --------------------------------------------------------------------
    def _interrupt_hook(self) -> Callable[[int, int, int], None]:
        core, alone = self._core, self._alone
        if core.context is not None:
            return self._interrupt_on_copies
        d, words, soft, fault = core.state.d, core.words, self._soft, self._fault

        def interrupt(uc: int, vector: int, user_data: int) -> None:
            try:
                if d[EXCEPTION_IS_INT]:
                    words[END] = 0  # the instruction ends its block
                    soft(vector)
                else:
                    fault(vector)
                if alone.stepping:
                    core.stop()
            except BaseException as error:
                core.failed(error)

        return interrupt

    def _interrupt_on_copies(self, uc: int, vector: int, user_data: int) -> None:
        core = self._core
        try:
            core.enter()
            if self._alone.end_trap_flag(vector):
                pass
            elif core.state.d[EXCEPTION_IS_INT]:
                core.words[END] = 0
                self._soft(vector)
            else:
                self._fault(vector)
            core.leave()
            if self._alone.stepping:
                core.stop()
        except BaseException as error:
            core.failed(error)

    def _soft(self, vector: int) -> None:
        core = self._core
        calls = self._calls.get(vector)
        if calls is not None and calls.serves(core.state):
            calls.call(core.state, self._log, self._attention)
        else:
            core.exits.soft_interrupt(vector)

    def _fault(self, vector: int) -> None:
        core = self._core
        d = core.state.d
        error_code = d[ERROR_CODE]
        d[OLD_EXCEPTION] = _M32  # or the next page fault arrives as a double fault
        if vector == _PF and self._is_fetch_fault(error_code):
            core.clock.settle_complete()  # nothing of the new block has run
            if self._alone.retry_fetch():
                return
        else:
            core.clock.settle()
        core.exits.exception(vector, error_code)

    def _is_fetch_fault(self, error_code: int) -> bool:
        """Whether a page fault came from translating the code at RIP, not from running it."""
        if error_code & _PF_FETCH:
            return True
        if error_code & _PF_WRITE:
            return False
        # without NX the error code does not say
        core = self._core
        fault, rip = core.state.q[CR2], core.linear_rip
        if fault == rip:
            return True
        crosses = not fault & 0xFFF and fault >> 12 == (rip >> 12) + 1
        return crosses and not core.clock.bytes_left()

    def _invalid(self, uc: int, user_data: int) -> bool:
        """An undefined instruction: #UD, and on."""
        core = self._core
        try:
            core.enter()
            core.clock.settle()
            core.exits.exception(_UD, 0)
            core.leave()
            if self._alone.stepping:
                core.stop()
        except BaseException as error:
            core.failed(error)
        return True

    # --- instructions ----------------------------------------------------------------------------
    def _other_syscall(self) -> None:
        """By machine code: a syscall that is no call."""
        try:
            self._core.exits.syscall()
        except BaseException as error:
            self._core.failed(error)

    def _syscall_hook(self) -> Callable[[int, int], None]:
        core, state = self._core, self._core.state
        q, words = state.q, core.words

        def syscall(uc: int, user_data: int) -> None:
            try:
                core.enter()
                words[END] = 0
                q[RIP] += 2
                if state.is_long_code:
                    q[_RCX], q[_R11] = q[RIP], state.rflags
                calls = self._syscall_calls
                if calls is not None and calls.serves(state):
                    calls.call(state, self._log, self._attention)
                else:
                    core.exits.syscall()
                q[RIP] = q[RIP] - 2 & _M64  # the engine adds the instruction's length
                core.leave()
            except BaseException as error:
                core.failed(error)

        return syscall

    def _sysenter(self, uc: int, user_data: int) -> None:
        core = self._core
        q = core.state.q
        try:
            core.enter()
            core.words[END] = 0
            q[RIP] += 2
            core.exits.sysenter()
            q[RIP] = q[RIP] - 2 & _M64
            core.leave()
        except BaseException as error:
            core.failed(error)

    def _cpuid(self, uc: int, user_data: int) -> int:
        core = self._core
        try:
            core.enter()
            core.exits.cpuid()
            core.leave()
        except BaseException as error:
            core.failed(error)
        return 1  # the engine's own answer is skipped

    def _rdtsc(self, uc: int, user_data: int) -> int:
        core = self._core
        try:
            core.enter()
            tsc = core.exits.rdtsc()
            core.state.set_gpr(_RAX, tsc & _M32)
            core.state.set_gpr(_RDX, tsc >> 32 & _M32)
            core.leave()
        except BaseException as error:
            core.failed(error)
        return 1

    def _port_in(self, uc: int, port: int, size: int, user_data: int) -> int:
        try:
            self._core.enter()
            return self._core.exits.port_in(port, size) & _M32
        except BaseException as error:
            self._core.failed(error)
        return 0

    def _port_out(self, uc: int, port: int, size: int, value: int, user_data: int) -> None:
        try:
            self._core.enter()
            self._core.exits.port_out(port, size, value)
        except BaseException as error:
            self._core.failed(error)
