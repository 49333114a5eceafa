"""The block counter: a few bytes of machine code that the engine calls before every block.

    if this block lies in the last one and ends before it does:
        counter -= what lay from here on in the last one
    counter += size; start = address; end = address + size
    if counter >= limit:
        if skip-- <= 0: stop the engine

Called as a C function (uc, address, size, counter block) by the engine's BLOCK hook, which stands
before the engine's own check for a stop: so a stop asked for here happens at this block's start,
exactly. Written straight into executable memory, because users have no compiler; where the host is
another kind, or gives no such memory, `PythonCounter` does the same more slowly.

The first rule is for code that writes into its own block. The engine then gives the block up at the
writing instruction and does that one alone, as a block of its own: the rest of the block, charged
already, was not done. Where one block is left for a place inside it in the ordinary way, by a jump,
the new block ends where the old one did.

The counter block is a few words of shared memory, so that any thread may ask for a stop by writing
one word (`limit` = 0): no asynchronous call into the engine, no store done twice.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

from hypervisor.machine import _engine

# --- words of the counter block -------------------------------------------------------------------
COUNTER: Final = 0  # bytes of all blocks entered
START: Final = 1  # linear address of the block entered last
END: Final = 2  # and the address behind it; 0: nothing of it is left
LIMIT: Final = 3  # stop at a block that would reach this; 0 at once
SKIP: Final = 4  # how many blocks to let through all the same
STOP: Final = 5  # address of uc_emu_stop
_WORDS: Final = 6

NO_LIMIT: Final = (1 << 64) - 1

# System V calling convention: rdi uc, rsi address, edx size, rcx counter block
_X86_64_SYSV: Final = bytes.fromhex(
    "89d0"  # mov eax, edx
    "4c8d0406"  # lea r8, [rsi+rax]
    "4c3b4110"  # cmp r8, [rcx+16]
    "721f"  # jb inside
    "480301"  # add: add rax, [rcx]
    "488901"  # mov [rcx], rax
    "48897108"  # mov [rcx+8], rsi
    "4c894110"  # mov [rcx+16], r8
    "483b4118"  # cmp rax, [rcx+24]
    "7301"  # jae slow
    "c3"  # ret
    "48ff4920"  # slow: dec qword [rcx+32]
    "7801"  # js stop
    "c3"  # ret
    "ff6128"  # stop: jmp [rcx+40]
    "483b7108"  # inside: cmp rsi, [rcx+8]
    "72db"  # jb add
    "4c8b4910"  # mov r9, [rcx+16]
    "4929f1"  # sub r9, rsi
    "4c2909"  # sub [rcx], r9
    "ebcf"  # jmp add
)


class Counter(Protocol):
    """What the Cpu needs of a block counter."""

    words: memoryview  # 'Q'

    def install(self, engine: _engine.Engine) -> None:
        """Let the engine call it."""


def machine_code(code: bytes) -> mmap.mmap:
    """Pages that the host can execute, with `code` at their start."""
    pages = max(1, -(-len(code) // mmap.PAGESIZE))
    page = mmap.mmap(
        -1, pages * mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    )
    page.write(code)
    return page


class NativeCounter:
    """The counter in machine code."""

    def __init__(self) -> None:
        self._code = machine_code(_X86_64_SYSV)
        self._data = (ctypes.c_uint64 * _WORDS)()
        self.words = memoryview(self._data).cast("B").cast("Q")

    def install(self, engine: _engine.Engine) -> None:
        """Let the engine call it before every block."""
        self.words[STOP] = engine.emu_stop_address
        code = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        engine.hook(
            _engine.HOOK_BLOCK, ctypes.c_void_p(code), user_data=ctypes.addressof(self._data)
        )


class PythonCounter:
    """The same in Python, for hosts without executable memory or of another kind."""

    def __init__(self) -> None:
        self._data = (ctypes.c_uint64 * _WORDS)()
        self.words = memoryview(self._data).cast("B").cast("Q")
        self._function: Any = None

    def install(self, engine: _engine.Engine) -> None:
        """Let the engine call it before every block."""
        self._function = _engine.BLOCK_FN(_counting(self.words, engine.stopper()))
        engine.hook(_engine.HOOK_BLOCK, self._function)


def _counting(
    words: memoryview, stop: Callable[[], object]
) -> Callable[[int, int, int, int], None]:
    def block(uc: int, address: int, size: int, user_data: int) -> None:
        end = address + size
        is_inside = words[START] <= address and end < words[END]
        not_done = words[END] - address if is_inside else 0
        total = words[COUNTER] - not_done + size
        words[COUNTER] = total
        words[START] = address
        words[END] = end
        if total >= words[LIMIT]:
            if words[SKIP] == 0 or words[SKIP] >> 63:
                stop()
            else:
                words[SKIP] -= 1

    return block


def native_code_works() -> bool:
    """Whether this host runs the machine code above."""
    if platform.machine() not in ("x86_64", "AMD64") or sys.platform == "win32":
        return False
    try:
        machine_code(b"").close()
    except (OSError, ValueError):
        return False
    return True
