"""Instructions that change one operand in memory, decoded once and then done by arithmetic.

For whoever does a guest's store on its behalf: what is read, what is written, what becomes of the
registers and of the flags (SDM 2). Covered are the instructions by which kernels write page-table
entries: mov, movnti, xchg, xadd, cmpxchg, cmpxchg8b, the arithmetic of one operand and of two, and
bts, btr, btc. Others are None to `decode`. Capstone cuts the instruction up, which takes some 30
us: keep the result.

Operands of 1, 2, 4 or 8 bytes. A locked instruction and a plain one are the same here: whoever
emulates does it between two instructions of the guest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypervisor.x86.flags import DS, GPR_NAMES, RAX, RBX, RCX, RDX, SEGMENT_NAMES, SS

if TYPE_CHECKING:
    import capstone

CF: Final = 1 << 0
PF: Final = 1 << 2
AF: Final = 1 << 4
ZF: Final = 1 << 6
SF: Final = 1 << 7
OF: Final = 1 << 11
ARITHMETIC_FLAGS: Final = CF | PF | AF | ZF | SF | OF

_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF


class Part(NamedTuple):
    """A general register or a part of one: `size` bytes of `number`, from bit `shift` on."""

    number: int
    size: int
    shift: int = 0

    def of(self, register: int) -> int:
        """Its value in the whole register's."""
        return register >> self.shift & (1 << 8 * self.size) - 1

    def into(self, register: int, value: int) -> int:
        """The whole register once it is written: 32 bits clear the upper half (SDM 1 3.4.1.1)."""
        if self.size == 4:
            return value & _M32
        mask = (1 << 8 * self.size) - 1 << self.shift
        return register & ~mask | value << self.shift & mask


class Change(NamedTuple):
    """What an instruction does to its operand: `new` None means that nothing is written."""

    new: int | None
    flags: int | None = None  # all of ARITHMETIC_FLAGS afterwards, None: as before
    registers: tuple[tuple[Part, int], ...] = ()


class Inputs(NamedTuple):
    """What the change depends on besides the old value."""

    source: int  # the register or the immediate, cut to the operand's size
    flags: int
    registers: Any  # general registers by number


#: (old value, inputs, size in bits)
Operation = Callable[[int, Inputs, int], Change]


class Address(NamedTuple):
    """Where an operand lies: registers are general ones by number, None where there is none."""

    segment: int  # ES, CS, ... as in flags
    base: int | None
    index_register: int | None
    scale: int
    displacement: int
    mask: int  # of the address size
    is_rip_relative: bool

    def offset(self, registers: Any, next_rip: int) -> int:
        """The offset in the segment."""
        at = self.displacement
        if self.base is not None:
            at += registers[self.base]
        if self.index_register is not None:
            at += registers[self.index_register] * self.scale
        if self.is_rip_relative:
            at += next_rip
        return at & self.mask


@dataclass(frozen=True, slots=True)
class MemoryWrite:
    """One decoded instruction."""

    length: int
    size: int  # of the operand, in bytes
    reads: bool  # whether the old value matters
    is_locked: bool  # by prefix, or as xchg always is
    operation: Operation
    address: Address
    source: Part | None
    immediate: int
    selects_word: bool  # bt*: the register's upper part is an index of words

    def offset(self, registers: Any, next_rip: int) -> int:
        """Where the operand lies in its segment."""
        at = self.address.offset(registers, next_rip)
        if self.selects_word and self.source is not None:
            bits = 8 * self.size
            value = self.source.of(registers[self.source.number])
            signed = value - (value >> bits - 1 << bits)
            at = at + signed // bits * self.size & self.address.mask
        return at

    def value(self, registers: Any) -> int:
        """The register or the immediate: what a plain move stores."""
        source = self.source
        return self.immediate if source is None else source.of(registers[source.number])

    def change(self, old: int, flags: int, registers: Any) -> Change:
        """What is to be done, given the operand's old value."""
        return self.operation(old, Inputs(self.value(registers), flags, registers), 8 * self.size)


# --- what each instruction does
# -------------------------------------------------------------------------------------
_PARITY: Final = tuple(PF if bin(byte).count("1") % 2 == 0 else 0 for byte in range(256))


def _result_flags(value: int, bits: int) -> int:
    """PF, ZF and SF of a result."""
    return _PARITY[value & 0xFF] | (0 if value else ZF) | (SF if value >> bits - 1 else 0)


def _sum(a: int, b: int, carry: int, bits: int) -> tuple[int, int]:
    total = a + b + carry
    value = total & (1 << bits) - 1
    overflow = (a ^ value) & (b ^ value)
    flags = _result_flags(value, bits) | (a ^ b ^ value) & AF
    return value, flags | (CF if total >> bits else 0) | (OF if overflow >> bits - 1 & 1 else 0)


def _difference(a: int, b: int, borrow: int, bits: int) -> tuple[int, int]:
    value = a - b - borrow & (1 << bits) - 1
    overflow = (a ^ b) & (a ^ value)
    flags = _result_flags(value, bits) | (a ^ b ^ value) & AF
    return value, flags | (CF if a < b + borrow else 0) | (OF if overflow >> bits - 1 & 1 else 0)


def _mov(old: int, given: Inputs, bits: int) -> Change:
    return Change(given.source)


def _add(old: int, given: Inputs, bits: int) -> Change:
    return Change(*_sum(old, given.source, 0, bits))


def _adc(old: int, given: Inputs, bits: int) -> Change:
    return Change(*_sum(old, given.source, given.flags & CF, bits))


def _sub(old: int, given: Inputs, bits: int) -> Change:
    return Change(*_difference(old, given.source, 0, bits))


def _sbb(old: int, given: Inputs, bits: int) -> Change:
    return Change(*_difference(old, given.source, given.flags & CF, bits))


def _and(old: int, given: Inputs, bits: int) -> Change:
    value = old & given.source
    return Change(value, _result_flags(value, bits))


def _or(old: int, given: Inputs, bits: int) -> Change:
    value = old | given.source
    return Change(value, _result_flags(value, bits))


def _xor(old: int, given: Inputs, bits: int) -> Change:
    value = old ^ given.source
    return Change(value, _result_flags(value, bits))


def _inc(old: int, given: Inputs, bits: int) -> Change:
    value, flags = _sum(old, 1, 0, bits)
    return Change(value, flags & ~CF | given.flags & CF)


def _dec(old: int, given: Inputs, bits: int) -> Change:
    value, flags = _difference(old, 1, 0, bits)
    return Change(value, flags & ~CF | given.flags & CF)


def _neg(old: int, given: Inputs, bits: int) -> Change:
    return Change(*_difference(0, old, 0, bits))


def _not(old: int, given: Inputs, bits: int) -> Change:
    return Change(old ^ (1 << bits) - 1)


def _bit_operation(update: Callable[[int, int], int]) -> Operation:
    def operation(old: int, given: Inputs, bits: int) -> Change:
        mask = 1 << (given.source & bits - 1)
        flags = given.flags & ARITHMETIC_FLAGS & ~CF | (CF if old & mask else 0)
        return Change(update(old, mask), flags)

    return operation


def _exchanging(part: Part, operation: Operation) -> Operation:
    """xchg and xadd: the register gets the old value."""

    def exchange(old: int, given: Inputs, bits: int) -> Change:
        new, flags, _ = operation(old, given, bits)
        return Change(new, flags, ((part, old),))

    return exchange


def _cmpxchg(old: int, given: Inputs, bits: int) -> Change:
    accumulator = Part(RAX, bits // 8)
    _, flags = _difference(accumulator.of(given.registers[RAX]), old, 0, bits)
    if flags & ZF:
        return Change(given.source, flags)
    return Change(None, flags, ((accumulator, old),))


def _cmpxchg8b(old: int, given: Inputs, bits: int) -> Change:
    registers = given.registers
    flags = given.flags & ARITHMETIC_FLAGS & ~ZF
    if old == registers[RAX] & _M32 | (registers[RDX] & _M32) << 32:
        return Change(registers[RBX] & _M32 | (registers[RCX] & _M32) << 32, flags | ZF)
    halves = ((Part(RAX, 4), old & _M32), (Part(RDX, 4), old >> 32))
    return Change(None, flags, halves)


_OPERATIONS: Final[dict[str, Operation]] = {
    "mov": _mov,
    "movabs": _mov,
    "movnti": _mov,
    "xchg": _mov,
    "xadd": _add,
    "cmpxchg": _cmpxchg,
    "cmpxchg8b": _cmpxchg8b,
    "add": _add,
    "adc": _adc,
    "sub": _sub,
    "sbb": _sbb,
    "and": _and,
    "or": _or,
    "xor": _xor,
    "inc": _inc,
    "dec": _dec,
    "neg": _neg,
    "not": _not,
    "bts": _bit_operation(lambda old, mask: old | mask),
    "btr": _bit_operation(lambda old, mask: old & ~mask),
    "btc": _bit_operation(lambda old, mask: old ^ mask),
}
_SWAPS: Final = frozenset({"xchg", "xadd"})
_SELECTS_WORD: Final = frozenset({"bts", "btr", "btc"})
_STACK_BASES: Final = frozenset({"rsp", "esp", "rbp", "ebp", "bp"})  # SDM 1 table 3-5
_LARGEST: Final = 8
_LOCK: Final = 0xF0


# --- decoding
# --------------------------------------------------------------------------------------------------
def _parts() -> dict[str, Part]:
    parts = {name: Part(number, 8) for number, name in enumerate(GPR_NAMES)}
    for number, name in enumerate(GPR_NAMES):
        if number < 8:
            short = name[1:]
            parts |= {f"e{short}": Part(number, 4), short: Part(number, 2)}
            low = short[0] if short in ("ax", "cx", "dx", "bx") else short
            parts[f"{low}l"] = Part(number, 1)
        else:
            suffixes = {"d": 4, "w": 2, "b": 1}
            parts |= {name + suffix: Part(number, size) for suffix, size in suffixes.items()}
    return parts | {f"{name}h": Part(number, 1, 8) for number, name in enumerate("acdb")}


PARTS: Final = _parts()
_disassemblers: dict[int, capstone.Cs] = {}


def _disassembler(bits: int) -> capstone.Cs:
    """Made when first needed: importing capstone takes as long as starting a small guest."""
    if bits not in _disassemblers:
        import capstone

        modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
        _disassemblers[bits] = capstone.Cs(capstone.CS_ARCH_X86, modes[bits])
        _disassemblers[bits].detail = True
    return _disassemblers[bits]


def decode(code: bytes, bits: int) -> MemoryWrite | None:
    """The instruction at the start of `code`, executed in `bits`-bit mode; None if it is none of
    those that are known, or writes no memory."""
    instruction = next(_disassembler(bits).disasm(code, 0, 1), None)
    if instruction is None:
        return None
    mnemonic = instruction.mnemonic.removeprefix("lock ")
    operation = _OPERATIONS.get(mnemonic)
    operands = instruction.operands
    at = _memory_operand(operands, is_swap=mnemonic in _SWAPS)
    if operation is None or at is None or operands[at].size > _LARGEST:
        return None
    address = _address(instruction, operands[at].mem)
    others = operands[:at] + operands[at + 1 :]
    source, immediate = _source(instruction, others, operands[at].size)
    if others and source is None and immediate is None:
        return None  # a segment, control or vector register
    if source is not None and mnemonic in _SWAPS:
        operation = _exchanging(source, operation)
    return MemoryWrite(
        length=instruction.size,
        size=operands[at].size,
        reads=operation is not _mov,
        is_locked=instruction.prefix[0] == _LOCK or mnemonic == "xchg",
        operation=operation,
        address=address,
        source=source,
        immediate=immediate or 0,
        selects_word=mnemonic in _SELECTS_WORD and source is not None,
    )


def _memory_operand(operands: list[Any], *, is_swap: bool) -> int | None:
    """Which operand is the one in memory that is written: the first, or either one of a swap."""
    from capstone.x86 import X86_OP_MEM

    for at, operand in enumerate(operands):
        if operand.type == X86_OP_MEM:
            return at if at == 0 or is_swap else None
    return None


def _source(instruction: Any, others: list[Any], size: int) -> tuple[Part | None, int | None]:
    """The register or the immediate, if there is one of these."""
    from capstone.x86 import X86_OP_IMM

    if not others:
        return None, None
    if others[0].type == X86_OP_IMM:
        return None, others[0].imm & (1 << 8 * size) - 1
    return PARTS.get(instruction.reg_name(others[0].reg)), None


def _address(instruction: Any, memory: Any) -> Address:
    base, index, override = (
        instruction.reg_name(register) for register in (memory.base, memory.index, memory.segment)
    )
    is_rip_relative = base in ("rip", "eip")
    if override:
        segment = SEGMENT_NAMES.index(override)
    else:
        segment = SS if base in _STACK_BASES else DS
    return Address(
        segment=segment,
        base=PARTS[base].number if base in PARTS else None,
        index_register=PARTS[index].number if index in PARTS else None,
        scale=memory.scale,
        displacement=memory.disp,
        mask=(1 << 8 * instruction.addr_size) - 1,
        is_rip_relative=is_rip_relative,
    )
