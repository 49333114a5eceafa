"""Instructions that change one operand in memory, decoded once and then done by arithmetic.

For whoever does a guest's store on its behalf: what is read, what is written, what becomes of the
registers and of the flags (SDM 2). Covered are the instructions by which kernels write page-table
entries: mov, movnti, xchg, xadd, cmpxchg, cmpxchg8b, the arithmetic of one operand and two, bts,
btr, btc, setcc, pop; and three whose operand the opcode implies: stos, movs (one element, as a
repeated one can be interrupted after each) and push. Others are None to `decode`. Capstone cuts
the instruction up, which takes some 30 us: keep the result.

Operands of 1, 2, 4 or 8 bytes. A locked instruction and a plain one are the same here: whoever
emulates does it between two instructions of the guest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypervisor.x86.flags import DS, ES, GPR_NAMES, RCX, RDI, RSI, RSP, SEGMENT_NAMES, SS
from hypervisor.x86.write_operations import (
    OPERATIONS,
    Change,
    Inputs,
    Operation,
    Part,
    exchanging,
    move,
    on_stack,
    setting,
    stepping,
)

if TYPE_CHECKING:
    import capstone

_SWAPS: Final = frozenset({"xchg", "xadd"})
_SELECTS_WORD: Final = frozenset({"bts", "btr", "btc"})
_STACK_BASES: Final = frozenset({"rsp", "esp", "rbp", "ebp", "bp"})  # SDM 1 table 3-5
_LARGEST: Final = 8
_LOCK: Final = 0xF0
_REPEATS: Final = (0xF2, 0xF3)
_OPERAND_SIZE: Final = 0x66
_MOVS: Final = (0xA4, 0xA5)
_STRING_OPCODES: Final = (*_MOVS, 0xAA, 0xAB)


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
    source_address: Address | None = None  # where the source lies if it is memory as well
    counter: Part | None = None  # of a repeated one: it is over when this has come to 0

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

    def change(self, old: int, flags: int, registers: Any, source: int | None = None) -> Change:
        """What is to be done, given the operand's old value, and the source's if it is memory."""
        value = self.value(registers) if source is None else source
        return self.operation(old, Inputs(value, flags, registers), 8 * self.size)

    def is_over(self, registers: Any) -> bool:
        """Whether the next instruction comes next, and not this one's next element."""
        counter = self.counter
        return counter is None or not counter.of(registers[counter.number])


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
    if _string(instruction):
        return _string_write(instruction)
    if mnemonic.startswith("push"):
        return _push(instruction, bits)
    if mnemonic == "pop":
        return _pop(instruction, bits)
    operation = _setcc(instruction) or OPERATIONS.get(mnemonic)
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
        operation = exchanging(source, operation)
    return MemoryWrite(
        length=instruction.size,
        size=operands[at].size,
        reads=operation is not move,
        is_locked=instruction.prefix[0] == _LOCK or mnemonic == "xchg",
        operation=operation,
        address=address,
        source=source,
        immediate=immediate or 0,
        selects_word=mnemonic in _SELECTS_WORD and source is not None,
    )


def _string(instruction: Any) -> bool:
    """Whether it is stos or movs: SSE has a movsd of its own, so the opcode decides."""
    return instruction.opcode[0] in _STRING_OPCODES and not instruction.opcode[1]


def _string_write(instruction: Any) -> MemoryWrite:
    destination, source = instruction.operands
    size = instruction.addr_size
    is_movs = instruction.opcode[0] in _MOVS
    is_repeated = instruction.prefix[0] in _REPEATS
    counter = Part(RCX, size) if is_repeated else None
    pointers = (Part(RDI, size), Part(RSI, size))[: 1 + is_movs]
    return MemoryWrite(
        length=instruction.size,
        size=destination.size,
        reads=True,
        is_locked=False,
        operation=stepping(pointers, counter),
        address=_address(instruction, destination.mem)._replace(segment=ES),
        source=None if is_movs else PARTS[instruction.reg_name(source.reg)],
        immediate=0,
        selects_word=False,
        source_address=_address(instruction, source.mem) if is_movs else None,
        counter=counter,
    )


def _push(instruction: Any, bits: int) -> MemoryWrite | None:
    """push of a register, an immediate or memory; not of a segment register or the flags, and not
    in 16-bit code, whose stack may be of either size."""
    from capstone.x86 import X86_OP_MEM

    if instruction.mnemonic != "push" or bits == 16:
        return None
    (operand,) = instruction.operands
    word = bits // 8
    size = 2 if _OPERAND_SIZE in instruction.prefix else word
    is_memory = operand.type == X86_OP_MEM
    source, immediate = (None, 0) if is_memory else _source(instruction, [operand], size)
    if source is None and immediate is None:
        return None
    return MemoryWrite(
        length=instruction.size,
        size=size,
        reads=True,
        is_locked=False,
        operation=on_stack(Part(RSP, word), -1),
        address=Address(SS, RSP, None, 1, -size, (1 << bits) - 1, is_rip_relative=False),
        source=source,
        immediate=immediate or 0,
        selects_word=False,
        source_address=_address(instruction, operand.mem) if is_memory else None,
    )


def _pop(instruction: Any, bits: int) -> MemoryWrite | None:
    """pop to memory; an address based on the stack pointer is of after the pop (SDM 2 POP)."""
    from capstone.x86 import X86_OP_MEM

    (operand,) = instruction.operands
    if operand.type != X86_OP_MEM or bits == 16:
        return None
    address = _address(instruction, operand.mem)
    if address.base == RSP:
        address = address._replace(displacement=address.displacement + operand.size)
    return MemoryWrite(
        length=instruction.size,
        size=operand.size,
        reads=True,
        is_locked=False,
        operation=on_stack(Part(RSP, bits // 8), 1),
        address=address,
        source=None,
        immediate=0,
        selects_word=False,
        source_address=Address(SS, RSP, None, 1, 0, (1 << bits) - 1, is_rip_relative=False),
    )


def _setcc(instruction: Any) -> Operation | None:
    """setcc's operation; None if it is another instruction."""
    first, second, *_ = instruction.opcode
    return setting(second & 0xF) if first == 0x0F and second & 0xF0 == 0x90 else None


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
