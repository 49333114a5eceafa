"""One instruction alone: for steps, and where the engine would fault too early.

Live, the engine is asked for a block of one instruction (`cflags_next_tb`). On copies there are two
other ways, each with its trace to remove: the public count, which leaves hooks behind, and the trap
flag, which code can see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.machine._core import Core
from hypervisor.machine._native import COUNTER, LIMIT, SKIP
from hypervisor.machine._walk import physical
from hypervisor.machine.state import CR2, DR6

_DB: Final = 1
_M32: Final = 0xFFFF_FFFF
_TF: Final = 1 << 8
_PUSHF: Final = 0x9C
_NO_MEMORY: Final = 0xFFFF_F000  # a physical address that no machine here has memory at


#: Enters the engine, with a count of instructions or 0; whether something asked for a stop.
Emulate = Callable[[int], bool]


class Alone:
    """What is being done singly, and why."""

    def __init__(self, core: Core, unpaged_state: bytes) -> None:
        self._core = core
        self._unpaged_state = unpaged_state  # one for code without an address space
        self.stepping = False
        self.due = False  # copies: one instruction is to be done by the trap flag before going on
        self._by_trap_flag = False  # it is being done
        self._done = False  # it was done
        self._retried = (-1, -1)  # linear RIP and counter of a fetch fault tried again, alone
        self._is_pushf = False
        self._dr6_before = 0

    # --- around the engine -----------------------------------------------------------------------
    def before_engine(self) -> None:
        """The engine is about to be entered."""
        self.due = self._done = False
        if not self._by_trap_flag:
            self._retried = (-1, -1)  # a stop came between: the next try is the first again

    def after_engine(self) -> bool:
        """It was left; whether for one instruction's sake only, so that it is to be entered again.

        At the limit it is not, nor at the end of a step.
        """
        if self._by_trap_flag:  # stopped before it: begin anew
            self._by_trap_flag = False
            self._core.state.rflags &= ~_TF
        words = self._core.words
        return self._done and not self.stepping and words[COUNTER] < words[LIMIT]

    # --- fetch faults ----------------------------------------------------------------------------
    def retry_fetch(self) -> bool:
        """A fetch faulted; whether it is tried again with a shorter block, or not now.

        A block that runs on into a page that cannot be fetched faults before its first instruction.
        Do one instruction alone; the one that really crosses faults again, alone: at the same
        place, with nothing done in between.
        """
        core = self._core
        if self.stepping:
            if core.words[SKIP] != 1:
                return True  # the step's own block was let through: the fault is the next step's
            if core.internals is not None:
                return False  # and it is one instruction
        rip = core.linear_rip
        here = (rip, core.words[COUNTER])
        if core.state.q[CR2] >> 12 == rip >> 12 or self._retried == here:
            return False
        self._retried = here
        if core.internals is not None:
            core.internals.cflags_next_tb.value = 1
        else:
            self.due = True
            core.stop()
        return True

    # --- steps -----------------------------------------------------------------------------------
    def step(self, emulate: Emulate) -> None:
        """Do one instruction, or one iteration of a repeated one, or handle one exit."""
        core = self._core
        core.stats.steps += 1
        core.words[SKIP] = 1
        core.words[LIMIT] = 0
        self.stepping = True
        try:
            if core.internals is not None:
                core.internals.cflags_next_tb.value = 1
                emulate(0)
                core.internals.cflags_next_tb.value = _M32
            else:
                self._step_on_copies(emulate)
        finally:
            self.stepping = False

    def _step_on_copies(self, emulate: Emulate) -> None:
        core = self._core
        state, words = core.state, core.words
        before = state.rip, words[COUNTER]
        core.exited = False
        core.engine.flush_translations()  # blocks made without the counter ignore it
        stopped = emulate(1)
        self._forget_count()
        if stopped or core.exited or (state.rip, words[COUNTER]) != before:
            return
        # It wrote into its own block: the engine began it again, and that was counted as a second.
        self.set_trap_flag()
        emulate(0)

    def _forget_count(self) -> None:
        """Have the engine take its count's hooks out now, in a state that is thrown away.

        It does so when it is started next without a count, looking up the places where the hooks
        were in whatever address space that is: what is not mapped there leaves the traces of a
        fault in the state. Started at an address without memory it does that and nothing else.
        """
        core = self._core
        if core.context is None or core.memory.size_bytes > _NO_MEMORY:
            return  # a machine that large keeps the traces
        state = core.state
        truth = state.save()
        state.load(self._unpaged_state)
        state.rip = _NO_MEMORY
        core.context.restore()
        core.engine.start(_NO_MEMORY)
        state.load(truth)

    # --- by the trap flag ------------------------------------------------------------------------
    def set_trap_flag(self) -> None:
        """Have the next instruction done by the trap flag, which makes blocks of one."""
        core = self._core
        state = core.state
        maddr = physical(core.memory, state, core.linear_rip)
        self._is_pushf = maddr is not None and _PUSHF in core.memory.read(maddr, 2)
        self._dr6_before = state.q[DR6]
        self._by_trap_flag = True
        state.rflags |= _TF
        core.words[SKIP] = 2  # a kick or the deadline comes after it, begun once or twice

    def end_trap_flag(self, vector: int) -> bool:
        """An exception arrived: whether it is only the #DB of the instruction done alone.

        Code runs on behind it, so of the instructions that could see the flag it can only be pushf:
        the flag is taken out of what that pushed.
        """
        if not self._by_trap_flag:
            return False
        core = self._core
        state = core.state
        self._by_trap_flag = False
        core.words[SKIP] = 1 if self.stepping and vector != _DB else 0
        state.rflags &= ~_TF
        if vector != _DB:
            return False
        core.clock.settle()
        state.q[DR6] = self._dr6_before
        if self._is_pushf:
            top = physical(core.memory, state, state.linear_rsp)
            if top is not None:
                core.memory.view[top + 1] &= ~1
        self._done = True
        core.stop()
        return True
