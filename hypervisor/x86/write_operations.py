"""What the instructions do that change an operand in memory: new value, registers, flags (SDM 2).

Pure arithmetic on ints, tested beside the engine's own execution of the same bytes. `memory_write`
finds out which instruction it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from hypervisor.x86.flags import RAX, RBX, RCX, RDX

CF: Final = 1 << 0
PF: Final = 1 << 2
AF: Final = 1 << 4
ZF: Final = 1 << 6
SF: Final = 1 << 7
DF: Final = 1 << 10
OF: Final = 1 << 11
ARITHMETIC_FLAGS: Final = CF | PF | AF | ZF | SF | OF

_M32: Final = 0xFFFF_FFFF


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


def move(old: int, given: Inputs, bits: int) -> Change:
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


def exchanging(part: Part, operation: Operation) -> Operation:
    """xchg and xadd: the register gets the old value."""

    def exchange(old: int, given: Inputs, bits: int) -> Change:
        new, flags, _ = operation(old, given, bits)
        return Change(new, flags, ((part, old),))

    return exchange


def stepping(pointers: tuple[Part, ...], counter: Part | None) -> Operation:
    """stos and movs, one element: the pointers move on, with a prefix the counter goes down."""

    def step(old: int, given: Inputs, bits: int) -> Change:
        by = -bits // 8 if given.flags & DF else bits // 8
        moves = [(pointer, by) for pointer in pointers]
        if counter is not None:
            moves.append((counter, -1))
        registers = given.registers
        return Change(given.source, None, tuple(_moved(registers, *move) for move in moves))

    return step


def on_stack(pointer: Part, direction: int) -> Operation:
    """push and pop: the stack pointer goes down (-1) or up (1)."""

    def operation(old: int, given: Inputs, bits: int) -> Change:
        by = direction * bits // 8
        return Change(given.source, None, (_moved(given.registers, pointer, by),))

    return operation


def setting(condition: int) -> Operation:
    """setcc: 1 or 0, as the condition holds (SDM 2 appendix B.1.4.7)."""

    def operation(old: int, given: Inputs, bits: int) -> Change:
        return Change(int(_holds(condition, given.flags)))

    return operation


def _holds(condition: int, flags: int) -> bool:
    is_less = bool(flags & SF) != bool(flags & OF)
    held = (
        flags & OF,
        flags & CF,
        flags & ZF,
        flags & (CF | ZF),
        flags & SF,
        flags & PF,
        is_less,
        is_less or flags & ZF,
    )[condition >> 1]
    return bool(held) != bool(condition & 1)


def _moved(registers: Any, part: Part, by: int) -> tuple[Part, int]:
    return part, part.of(registers[part.number]) + by & (1 << 8 * part.size) - 1


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


OPERATIONS: Final[dict[str, Operation]] = {
    "mov": move,
    "movabs": move,
    "movnti": move,
    "xchg": move,
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
