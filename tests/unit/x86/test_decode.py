"""The front of an instruction (SDM 2 chapter 2)."""

from __future__ import annotations

import pytest

from hypervisor.x86.decode import modrm_registers, opcode_of


@pytest.mark.parametrize(
    ("code", "is_64", "opcode", "length", "rex"),
    [
        ("fa", False, 0xFA, 1, 0),
        ("0f20d8", False, 0x0F20, 2, 0),
        ("440f20c0", True, 0x0F20, 3, 0x44),
        ("44", False, 0x44, 1, 0),  # inc esp, where there is no REX
        ("66f3a5", False, 0xA5, 3, 0),
        ("2e0f01", True, 0x0F01, 3, 0),
    ],
)
def test_the_opcode_is_found(code: str, is_64: bool, opcode: int, length: int, rex: int) -> None:
    front = opcode_of(bytes.fromhex(code), is_64=is_64)
    assert front is not None
    assert (front.opcode, front.length, front.rex) == (opcode, length, rex)


def test_prefixes_are_kept() -> None:
    front = opcode_of(bytes.fromhex("66f2a4"), is_64=True)
    assert front is not None
    assert front.prefixes == {0x66, 0xF2}


@pytest.mark.parametrize("code", ["", "66", "48", "0f", "f3480f"])
def test_what_ends_too_early_is_no_instruction(code: str) -> None:
    assert opcode_of(bytes.fromhex(code), is_64=True) is None


@pytest.mark.parametrize(
    ("modrm", "rex", "registers"),
    [(0xD8, 0, (3, 0)), (0xC7, 0x44, (8, 7)), (0xC7, 0x41, (0, 15)), (0xFF, 0x45, (15, 15))],
)
def test_rex_extends_the_registers(modrm: int, rex: int, registers: tuple[int, int]) -> None:
    assert modrm_registers(modrm, rex) == registers
