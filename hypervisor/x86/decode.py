"""Cutting an instruction into prefixes, opcode and ModRM (SDM 2 chapter 2).

Just enough to tell privileged instructions apart quickly; whoever needs operands in memory uses
capstone. Works on at least one and at most 15 bytes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

MAX_INSTRUCTION: Final = 15

_LEGACY_PREFIXES: Final = frozenset(
    {0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3}
)


class Opcode(NamedTuple):
    """The front of an instruction. `length` counts through the opcode, ModRM not included."""

    prefixes: frozenset[int]
    rex: int
    opcode: int  # 0x0fXX for two-byte opcodes
    length: int


@lru_cache(maxsize=4096)
def opcode_of(code: bytes, *, is_64: bool) -> Opcode | None:
    """Prefixes and opcode at the start of `code`; None when it ends before the opcode does."""
    at = 0
    prefixes = set()
    while at < len(code) and code[at] in _LEGACY_PREFIXES:
        prefixes.add(code[at])
        at += 1
    rex = 0
    if is_64 and at < len(code) and code[at] & 0xF0 == 0x40:
        rex = code[at]
        at += 1
    if at >= len(code):
        return None
    opcode = code[at]
    at += 1
    if opcode == 0x0F:
        if at >= len(code):
            return None
        opcode = 0x0F00 | code[at]
        at += 1
    return Opcode(frozenset(prefixes), rex, opcode, at)


def modrm_registers(modrm: int, rex: int) -> tuple[int, int]:
    """The `reg` and `rm` fields, extended by REX.R and REX.B."""
    return (modrm >> 3 & 7) | (rex & 4) << 1, (modrm & 7) | (rex & 1) << 3
