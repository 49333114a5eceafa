"""Code that is run at start-up, where nobody sees it, to try the engine out.

It stands at the end of memory for the while, without paging, at CPL 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.machine import _engine
from hypervisor.machine._alone import Alone
from hypervisor.machine._core import Core, CpuStats
from hypervisor.machine._native import COUNTER, END, LIMIT, SKIP
from hypervisor.machine.state import CS, initial_state

_TRIAL_BYTES: Final = 16
_CR0_PE_ET: Final = 0x11
_FLAT_CODE: Final = (8, 0, 0xFFFF_FFFF, 0x00CF_9B00)


def unpaged_state(core: Core) -> bytes:
    """A state for 32-bit code at CPL 0 without paging."""
    state = core.state
    state.load(initial_state(core.reset_state, "pae"))
    state.cr0 = _CR0_PE_ET
    state.set_segment(CS, *_FLAT_CODE)
    state.set_cpl(0)
    unpaged = state.save()
    state.load(core.reset_state)
    return unpaged


def warm_up(core: Core, unpaged: bytes) -> None:
    """Run a jump once: the engine reports new blocks only from the second one on."""
    _try_out(core, unpaged, b"\xeb\xfe", lambda: _let_block_pass(core))


def internals_work(core: Core, alone: Alone, unpaged: bytes) -> bool:
    """Whether the two words that no register shows have the effect they should.

    Of three instructions, a step does one; and a stop asked for at the first waits for the end of
    their block.
    """
    ends: list[int] = []
    begin = core.memory.size_bytes - _TRIAL_BYTES

    def emulate(count: int) -> bool:
        core.start(count)
        return False

    def step() -> None:
        alone.step(emulate)
        ends.append(core.state.rip - begin)

    def run_with_stop() -> None:
        function = _engine.BLOCK_FN(lambda uc, vaddr, size, user_data: core.stop())
        hook = core.engine.hook(_engine.HOOK_CODE, function, begin=begin, end=begin)
        _let_block_pass(core)
        core.engine.unhook(hook)
        ends.append(core.state.rip - begin)

    code = b"\x90\x90\xeb\x04\x90\x90\x90\x90\xeb\xfe"  # to the jump to itself, by a jump
    _try_out(core, unpaged, code, step)
    _try_out(core, unpaged, code, run_with_stop)
    return ends == [1, 8]


def _let_block_pass(core: Core) -> None:
    core.words[SKIP], core.words[LIMIT] = 1, 0
    core.start()


def _try_out(core: Core, unpaged: bytes, code: bytes, run: Callable[[], None]) -> None:
    """Call `run` with `code` about to be executed, and leave no trace of it."""
    memory, state = core.memory, core.state
    before = state.save()
    begin = memory.size_bytes - _TRIAL_BYTES
    kept = memory.read(begin, len(code))
    memory.write(begin, code)
    state.load(unpaged)
    state.rip = begin
    run()
    memory.write(begin, kept)
    state.load(before)
    core.engine.flush_translations()
    core.words[COUNTER] = 0
    core.words[END] = 0
    core.stats = CpuStats()
