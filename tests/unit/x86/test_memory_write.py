"""What a decoded store does, beside the engine that executes the same bytes (SDM 2)."""

from __future__ import annotations

from importlib import import_module
from random import Random
from typing import Any

import pytest
from unicorn import x86_const as const

from hypervisor.x86.flags import GPR_NAMES, RAX, RBX, RCX, RDI, RDX, RSI, RSP
from hypervisor.x86.memory_write import decode
from hypervisor.x86.write_operations import AF, ARITHMETIC_FLAGS, CF, DF, OF, PF, SF, ZF

unicorn: Any = import_module("unicorn")  # untyped
CODE, DATA = 0x1000, 0x2000
GPRS = {
    64: [getattr(const, f"UC_X86_REG_{name.upper()}") for name in GPR_NAMES],
    32: [getattr(const, f"UC_X86_REG_E{name[1:].upper()}") for name in GPR_NAMES[:8]],
}
LOGIC = ARITHMETIC_FLAGS & ~AF
ONLY_CARRY = CF

#: Bytes by name, with the flags that the manual defines. RDI points to the operand.
STORES_64 = {
    "mov_m64_r": ("48 89 07", 0),
    "mov_m32_r": ("89 0f", 0),
    "mov_m8_high": ("88 27", 0),
    "mov_m8_sil": ("40 88 37", 0),
    "mov_m64_imm": ("48 c7 07 78 56 34 f2", 0),
    "mov_index": ("48 89 44 cf 10", 0),
    "mov_rip": ("48 89 05 f9 0f 00 00", 0),
    "movnti": ("48 0f c3 0f", 0),
    "xchg": ("48 87 07", 0),
    "xchg_32": ("87 17", 0),
    "lock_xadd": ("f0 48 0f c1 17", ARITHMETIC_FLAGS),
    "lock_cmpxchg": ("f0 48 0f b1 17", ARITHMETIC_FLAGS),
    "cmpxchg_32": ("0f b1 17", ARITHMETIC_FLAGS),
    "cmpxchg8b": ("f0 0f c7 0f", ZF),
    "and_m8_imm": ("80 27 fd", LOGIC),
    "and_m64_imm": ("48 83 27 fd", LOGIC),
    "or_m64_r": ("48 09 17", LOGIC),
    "xor_m16_r": ("66 31 17", LOGIC),
    "add": ("48 01 17", ARITHMETIC_FLAGS),
    "adc": ("11 17", ARITHMETIC_FLAGS),
    "sub": ("48 29 17", ARITHMETIC_FLAGS),
    "sbb": ("18 17", ARITHMETIC_FLAGS),
    "inc": ("48 ff 07", ARITHMETIC_FLAGS),
    "dec": ("fe 0f", ARITHMETIC_FLAGS),
    "neg": ("48 f7 1f", ARITHMETIC_FLAGS),
    "not": ("f7 17", ARITHMETIC_FLAGS),
    "bts_imm": ("48 0f ba 2f 21", ONLY_CARRY),
    "btr_imm": ("0f ba 37 01", ONLY_CARRY),
    "lock_btr_r": ("f0 48 0f b3 17", ONLY_CARRY),
    "btc_r": ("0f bb 17", ONLY_CARRY),
    "stosb": ("aa", 0),
    "stosd": ("ab", 0),
    "stosq": ("48 ab", 0),
    "stosd_edi": ("67 ab", 0),
    "movsq": ("48 a5", 0),
    "movsw": ("66 a5", 0),
    "push_r": ("50", 0),
    "push_r9": ("41 51", 0),
    "push_imm8": ("6a fd", 0),
    "push_imm32": ("68 78 56 34 f2", 0),
    "push_16": ("66 50", 0),
    "push_m": ("ff 36", 0),
    "pop_m": ("8f 07", 0),
    "pop_m_rsp": ("8f 44 24 08", 0),
    "pop_m_16": ("66 8f 07", 0),
    **{f"setcc_{cc:x}": (f"0f 9{cc:x} 07", 0) for cc in range(16)},
}
STORES_32 = {
    "mov_m32_r": ("89 07", 0),
    "mov_absolute": ("a3 08 20 00 00", 0),
    "mov_m32_imm": ("c7 07 78 56 34 f2", 0),
    "lock_cmpxchg8b": ("f0 0f c7 0f", ZF),
    "and_m8_imm": ("80 67 04 fd", LOGIC),
    "lock_btr_imm": ("f0 0f ba 37 06", ONLY_CARRY),
    "xchg": ("87 17", 0),
    "stosd": ("ab", 0),
    "stosw_di": ("67 66 ab", 0),
    "movsd": ("a5", 0),
    "movsb": ("a4", 0),
    "push_r": ("50", 0),
    "push_imm8": ("6a fd", 0),
    "push_m": ("ff 76 04", 0),
    "pop_m": ("8f 07", 0),
    "pop_m_esp": ("8f 04 24", 0),
    "setg": ("0f 9f 07", 0),
}
CASES = [
    pytest.param(bits, *case, id=f"{name}-{bits}")
    for bits, cases in ((64, STORES_64), (32, STORES_32))
    for name, case in cases.items()
]


class Native:
    """The engine, without paging."""

    def __init__(self, bits: int) -> None:
        mode = unicorn.UC_MODE_64 if bits == 64 else unicorn.UC_MODE_32
        self.uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, mode)
        self.uc.mem_map(0, 0x10000)
        self.gprs = GPRS[bits]

    def run(
        self, code: bytes, registers: list[int], flags: int, data: bytes
    ) -> tuple[list[int], int, bytes]:
        uc = self.uc
        uc.mem_write(CODE, code + b"\x90")
        uc.mem_write(DATA - 64, data)
        for register, value in zip(self.gprs, registers, strict=True):
            uc.reg_write(register, value)
        uc.reg_write(const.UC_X86_REG_EFLAGS, flags | 2)
        uc.emu_start(CODE, CODE + len(code))
        after = [uc.reg_read(register) for register in self.gprs]
        return after, uc.reg_read(const.UC_X86_REG_EFLAGS), bytes(uc.mem_read(DATA - 64, 256))


def emulated(
    code: bytes, bits: int, registers: list[int], flags: int, data: bytes
) -> tuple[list[int], int, bytes]:
    """The same by arithmetic."""
    found = decode(code + b"\x90" * 15, bits)
    assert found is not None
    assert found.length == len(code)
    at = found.offset(registers, CODE + found.length) - DATA + 64
    old = int.from_bytes(data[at : at + found.size], "little")
    source = None
    if found.source_address is not None:
        start = found.source_address.offset(registers, CODE + found.length) - DATA + 64
        source = int.from_bytes(data[start : start + found.size], "little")
    change = found.change(old, flags, registers, source)
    after = list(registers)
    for part, value in change.registers:
        after[part.number] = part.into(after[part.number], value)
    new = old if change.new is None else change.new
    memory = data[:at] + new.to_bytes(found.size, "little") + data[at + found.size :]
    return after, flags if change.flags is None else change.flags, memory


@pytest.mark.parametrize(("bits", "text", "defined"), CASES)
def test_as_the_cpu_does(bits: int, text: str, defined: int) -> None:
    random = Random(7)
    native = Native(bits)
    code = bytes.fromhex(text)
    for round_ in range(40):
        registers = [random.getrandbits(bits) for _ in native.gprs]
        data = bytearray(random.randbytes(256))
        registers[RDI] = DATA
        registers[RSI] = DATA + 48
        registers[RSP] = DATA + 16
        registers[RCX] = random.randrange(4) if "cf 10" in text else registers[RCX]
        registers[RDX] = random.randrange(-200, 200) % (1 << bits) if "f" in text else 0
        if round_ % 2:  # a comparison that succeeds
            registers[RAX] = int.from_bytes(data[64 : 64 + bits // 8], "little")
            if "c7 0f" in text:
                registers[RAX] = int.from_bytes(data[64:68], "little")
                registers[RDX] = int.from_bytes(data[68:72], "little")
        flags = random.getrandbits(12) & (ARITHMETIC_FLAGS | DF)
        expected = native.run(code, registers, flags, bytes(data))
        found = emulated(code, bits, registers, flags, bytes(data))
        if text == "0f b1 17":  # the engine clears the upper half when nothing is written, too
            expected[0][RAX] = found[0][RAX]
        assert found[0] == expected[0]
        assert found[1] & defined == expected[1] & defined
        assert found[2] == expected[2]


@pytest.mark.parametrize(
    "text",
    [
        "8b 07",  # a load
        "01 c8",  # registers alone
        "8c 1f",  # a segment register
        "48 0f c7 0f",  # cmpxchg16b: two entries at once
        "0f 11 07",  # movups
        "0f 28",  # cut off
        "",
    ],
)
def test_others_are_not_decoded(text: str) -> None:
    assert decode(bytes.fromhex(text), 64) is None


def test_flags_that_are_not_arithmetic_stay() -> None:
    found = decode(bytes.fromhex("48 01 17"), 64)
    assert found is not None
    flags = found.change(1, 1 << 9 | 1 << 18, [RBX] * 16).flags
    assert flags is not None
    assert not flags & ~(CF | PF | AF | ZF | SF | OF)
