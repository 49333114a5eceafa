"""Watching what code gets translated: which frames hold code, and where to stop in it.

The engine tells of each new block before it runs. Three things hang on that:

- The frames it lies in are marked, so that a write by the VMM to any other frame costs one look-up.
- `in` and `out` do not fault in the engine, whatever CPL and IOPL say, and cannot be stopped at
  from their own hook. Where a block contains one, a CODE hook is put on that address and the block
  is translated again; the hook runs before the instruction and stops there, exactly.
- Breakpoints work the same way.

A CODE hook belongs to a virtual address, which means other code in other address spaces: it looks
at the bytes before it decides. Blocks with such hooks are translated with the engine's own stop
checks at every instruction (`no_exit_request` 0).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from hypervisor.machine import _engine
from hypervisor.machine._core import Core
from hypervisor.machine._native import COUNTER, END, START
from hypervisor.machine._walk import physical

#: in, out with an immediate or DX; ins, outs.
_PORT_BYTES: Final = re.compile(rb"[\xe4-\xe7\xec-\xef\x6c-\x6f]")
_PREFIXES: Final = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_PORT_OPCODES: Final = frozenset((*range(0xE4, 0xE8), *range(0xEC, 0xF0), *range(0x6C, 0x70)))
_MAX_INSTRUCTION: Final = 15
_MAX_PORT_HOOKS: Final = 256  # a guest may have port instructions everywhere; all hooks are asked


class CodeWatch:
    """What the CPU knows of its translated code."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.code_frames = bytearray(core.memory.nr_frames)
        self._port_hooks: dict[int, int] = {}  # linear address -> hook
        self._breakpoints: dict[int, int] = {}
        self._hooked: set[int] = set()  # start of blocks to be translated with checks
        self._restart = False
        self._port_fault = False
        self._hit = False
        self._pass_once = -1  # the breakpoint that was just reported
        self._passed = (-1, -1)  # and where it was let pass, which may be begun again
        self._disassemblers: dict[int, Any] = {}

    def forget(self) -> None:
        """All translations have been dropped."""
        self.code_frames[:] = bytes(len(self.code_frames))

    def take_restart(self) -> bool:
        """Whether the engine was left only to translate a block again."""
        restart, self._restart = self._restart, False
        if len(self._port_hooks) > _MAX_PORT_HOOKS:
            self._forget_ports()
        return restart

    def _forget_ports(self) -> None:
        """Outside the engine: begin to look for port instructions anew."""
        for hook in self._port_hooks.values():
            self._core.engine.unhook(hook)
        self._port_hooks.clear()
        self._hooked.clear()
        self._core.engine.flush_translations()
        self.forget()

    def take_port_fault(self) -> bool:
        """Whether the instruction at RIP is a port access that faults."""
        fault, self._port_fault = self._port_fault, False
        return fault

    @property
    def is_hit(self) -> bool:
        """Whether a breakpoint was reached, and not yet reported."""
        return self._hit

    def take_hit(self) -> bool:
        """Whether a breakpoint was reached."""
        hit, self._hit = self._hit, False
        return hit

    # --- new blocks ------------------------------------------------------------------------------
    def block_translated(self, uc: int, block: Any, previous: Any, user_data: int) -> None:
        """A block was translated and is about to run (EDGE hook)."""
        try:
            start, size = block.contents.pc, block.contents.size
            self._note(start, size)
        except BaseException as error:
            self._core.failed(error)

    def _note(self, start: int, size: int) -> None:
        core = self._core
        code = b""
        for vaddr, length in _pages(start, size):
            maddr = physical(core.memory, core.state, vaddr)
            if maddr is None or maddr + length > core.memory.size_bytes:
                return
            self.code_frames[maddr >> 12] = 1
            code += core.memory.view[maddr : maddr + length]
        stops = {at for at in self._breakpoints if start <= at < start + size}
        if _PORT_BYTES.search(code):
            stops |= self._hook_ports(start, code)
        if stops and start not in self._hooked and not self._is_begun_again(start, size):
            self._translate_again(start)
        elif stops:
            self._set_checks(False)
            self._hooked.discard(start)

    def _translate_again(self, start: int) -> None:
        """Have the block translated once more, with its hooks and with a check at each."""
        self._hooked.add(start)
        self._set_checks(True)
        self._core.clock.settle_complete()  # of the block before nothing is left, wherever RIP lies
        # All of its bytes would be too many: two blocks that overlap would chase each other out.
        self._core.engine.remove_translations(start, start + 1)
        self._restart = True
        self._core.stop()

    def _set_checks(self, on: bool) -> None:
        if self._core.internals is not None:
            self._core.internals.no_exit_request.value = 0 if on else 1

    def _position(self, vaddr: int) -> int:
        """What the counter is at an instruction of the block that runs, before it is executed."""
        words = self._core.words
        return words[COUNTER] - (words[END] - vaddr)

    def _is_begun_again(self, start: int, size: int) -> bool:
        """Whether a new block is an instruction that wrote into the block it is in: see _native."""
        words = self._core.words
        return words[START] <= start and start + size < words[END]

    # --- ports -----------------------------------------------------------------------------------
    def _hook_ports(self, start: int, code: bytes) -> set[int]:
        """Put hooks on the port instructions in a block; where they are."""
        found = {start + offset for offset in self._port_offsets(code)}
        for vaddr in found - self._port_hooks.keys():
            function = _engine.BLOCK_FN(self._at_port)
            hook = self._core.engine.hook(_engine.HOOK_CODE, function, begin=vaddr, end=vaddr)
            self._port_hooks[vaddr] = hook
        return found

    def _port_offsets(self, code: bytes) -> list[int]:
        return [
            address
            for address, size, _, _ in self._disassembler().disasm_lite(code, 0)
            if _PORT_BYTES.search(code, address, address + size)
            and _port_opcode(code[address : address + size])
        ]

    def _disassembler(self) -> Any:
        import capstone

        state = self._core.state
        bits = 64 if state.is_long_code else 32 if state.hflags >> 4 & 1 else 16
        if bits not in self._disassemblers:
            mode = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
            disassembler = capstone.Cs(capstone.CS_ARCH_X86, mode[bits])
            disassembler.skipdata = True
            self._disassemblers[bits] = disassembler
        return self._disassemblers[bits]

    def _at_port(self, uc: int, vaddr: int, size: int, user_data: int) -> None:
        """About to execute what was a port instruction in some address space."""
        try:
            core = self._core
            core.enter()
            maddr = physical(core.memory, core.state, vaddr)
            code = b"" if maddr is None else core.memory.read(maddr, _MAX_INSTRUCTION)
            iopl = core.state.rflags >> 12 & 3
            if not _port_opcode(code) or core.state.cpl <= iopl:
                return
            if not core.exits.port_allowed(code):
                self._port_fault = True
                core.stop()
        except BaseException as error:
            self._core.failed(error)

    # --- breakpoints -----------------------------------------------------------------------------
    def add_breakpoint(self, vaddr: int) -> bool:
        """Stop before the instruction at `vaddr`; whether translated code has to be dropped."""
        if vaddr in self._breakpoints:
            return False
        function = _engine.BLOCK_FN(self._at_breakpoint)
        hook = self._core.engine.hook(_engine.HOOK_CODE, function, begin=vaddr, end=vaddr)
        self._breakpoints[vaddr] = hook
        return True

    def remove_breakpoint(self, vaddr: int) -> bool:
        """The opposite."""
        hook = self._breakpoints.pop(vaddr, None)
        if hook is None:
            return False
        self._core.engine.unhook(hook)
        return True

    def _at_breakpoint(self, uc: int, vaddr: int, size: int, user_data: int) -> None:
        try:
            here = vaddr, self._position(vaddr)
            if self._pass_once == vaddr or self._passed == here:
                self._pass_once = -1
                self._passed = here
                return
            if vaddr in self._breakpoints:
                self._pass_once = vaddr
                self._hit = True
                self._core.stop()
        except BaseException as error:
            self._core.failed(error)


@lru_cache(maxsize=1024)
def _port_opcode(code: bytes) -> bool:
    """Whether an instruction is in, out, ins or outs."""
    at = 0
    while at < len(code) and code[at] in _PREFIXES:
        at += 1
    has_rex = at + 1 < len(code) and code[at] & 0xF0 == 0x40
    if has_rex and code[at + 1] in _PORT_OPCODES and code[at + 1] < 0x70:
        at += 1  # REX before ins, outs
    return at < len(code) and code[at] in _PORT_OPCODES


def _pages(start: int, size: int) -> list[tuple[int, int]]:
    first = min(size, 4096 - (start & 0xFFF))
    pages = [(start, first)]
    if size > first:
        pages.append((start + first, size - first))
    return pages
