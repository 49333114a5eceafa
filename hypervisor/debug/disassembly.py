"""Machine code as text, for a person who steps through a guest.

capstone decodes; nothing here is used to decide what an instruction does. Bytes that are no
instruction are shown as data, one at a time, as debuggers do, so that a listing never just stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import capstone

INSTRUCTION_MAX: Final = 15  # bytes; longer ones fault (SDM 2A 2.3.11)

_MODES: Final = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction, or one byte that starts none."""

    vaddr: int
    code: bytes
    text: str


@cache
def _decoder(bits: int) -> capstone.Cs:
    return capstone.Cs(capstone.CS_ARCH_X86, _MODES[bits])


def disassemble(code: bytes, vaddr: int, bits: int, nr_lines: int) -> list[Line]:
    """At most `nr_lines` lines for `code`, whose first byte lies at `vaddr`.

    `bits` is the code segment's width: 16, 32 or 64.
    """
    lines: list[Line] = []
    offset = 0
    while offset < len(code) and len(lines) < nr_lines:
        line = _one(code[offset : offset + INSTRUCTION_MAX], vaddr + offset, bits)
        lines.append(line)
        offset += len(line.code)
    return lines


def _one(code: bytes, vaddr: int, bits: int) -> Line:
    for address, size, mnemonic, operands in _decoder(bits).disasm_lite(code, vaddr, 1):
        return Line(address, code[:size], f"{mnemonic} {operands}".rstrip())
    return Line(vaddr, code[:1], f".byte 0x{code[0]:02x}")
