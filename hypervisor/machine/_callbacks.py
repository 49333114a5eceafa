"""What the engine calls at traps: each brings the state up to date and asks the owner.

The interrupt hook is the hot path: a trap costs one C callback, one test and one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.machine import _engine
from hypervisor.machine._alone import Alone
from hypervisor.machine._code_watch import CodeWatch
from hypervisor.machine._core import Core
from hypervisor.machine._native import SIZE
from hypervisor.machine.state import CR2, ERROR_CODE, EXCEPTION_IS_INT, OLD_EXCEPTION, RIP

_UD: Final = 6
_PF: Final = 14
_PF_WRITE: Final = 1 << 1
_PF_FETCH: Final = 1 << 4
_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_RAX: Final = 0
_RDX: Final = 2


class Callbacks:
    """The engine's hooks of one CPU. `soft` has the handler of each `int n`."""

    def __init__(
        self, core: Core, alone: Alone, watch: CodeWatch, soft: list[Callable[[], None]]
    ) -> None:
        self._core = core
        self._alone = alone
        self._soft = soft
        self._install(watch)

    def _install(self, watch: CodeWatch) -> None:
        """Install every callback. SYSCALL's must be the first INSN hook: the engine skips hooks
        behind others while a stop is pending, and the instruction would do nothing."""
        engine = self._core.engine
        void = _engine.VOID_INSN_FN
        syscall = void(self._syscall_hook())
        engine.hook(_engine.HOOK_INSN, syscall, insn=_engine.INSN_SYSCALL)
        engine.hook(_engine.HOOK_INSN, void(self._sysenter), insn=_engine.INSN_SYSENTER)
        engine.hook(_engine.HOOK_INTR, _engine.INTR_FN(self._interrupt_hook()))
        engine.hook(_engine.HOOK_INSN_INVALID, _engine.INVALID_FN(self._invalid))
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
                    words[SIZE] = 0  # the instruction ends its block
                    soft[vector]()
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
                core.words[SIZE] = 0
                self._soft[vector]()
            else:
                self._fault(vector)
            core.leave()
            if self._alone.stepping:
                core.stop()
        except BaseException as error:
            core.failed(error)

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
    def _syscall_hook(self) -> Callable[[int, int], None]:
        core = self._core
        q, words = core.state.q, core.words

        def syscall(uc: int, user_data: int) -> None:
            try:
                core.enter()
                words[SIZE] = 0
                q[RIP] += 2
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
            core.words[SIZE] = 0
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
