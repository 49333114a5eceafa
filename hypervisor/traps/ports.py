"""Port I/O of a guest: who may, and what there is to hear.

A port may be used at the virtual IOPL, or where the guest's own bitmap has a clear bit for each
byte of the access (guest_io_okay in Xen's arch/x86/pv/emul-priv-op.c). No port answers: a read
gives all ones, a write is lost. The string forms move their memory all the same.
"""

from __future__ import annotations

from typing import Final

from hypervisor.mm.guest_memory import GuestFault
from hypervisor.traps.current import Current
from hypervisor.x86.decode import Opcode
from hypervisor.x86.flags import (
    DS,
    EFLAGS_DF,
    ES,
    FS,
    GS,
    RAX,
    RCX,
    RDI,
    RDX,
    RSI,
    SS,
)
from hypervisor.x86.paging import PAGE_SHIFT

PORT_OPCODES: Final = frozenset({0xE4, 0xE5, 0xE6, 0xE7, *range(0xEC, 0xF0), *range(0x6C, 0x70)})
_IMMEDIATE: Final = frozenset({0xE4, 0xE5, 0xE6, 0xE7})
_READS: Final = frozenset({0xE4, 0xE5, 0xEC, 0xED})
_INS: Final = frozenset({0x6C, 0x6D})
_STRINGS: Final = frozenset(range(0x6C, 0x70))
_REPEATS: Final = frozenset({0xF2, 0xF3})
_OPERAND_SIZE: Final = 0x66
_ADDRESS_SIZE: Final = 0x67
_SEGMENTS: Final = {0x26: ES, 0x36: SS, 0x3E: DS, 0x64: FS, 0x65: GS}
_AT_ONCE: Final = 1024  # elements of a repeated one that are moved before others have their turn
_PS_PER_ELEMENT: Final = 1_000_000  # about what a port takes on real machines
_M16: Final = 0xFFFF
_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF


class MemoryFault(Exception):
    """An emulated instruction could not reach its operand: a page fault of the guest's."""

    def __init__(self, vaddr: int, *, write: bool, present: bool) -> None:
        super().__init__(vaddr)
        self.vaddr = vaddr
        self.error_code = (1 if present else 0) | (2 if write else 0)


def emulate_port(current: Current, front: Opcode, code: bytes, *, is_64: bool) -> int | None:
    """Do in, out, ins or outs. Returns its length, 0 while a repeated one is not finished, None
    where the guest may not use the port. Raises MemoryFault."""
    length = front.length
    opcode = front.opcode
    if opcode in _IMMEDIATE:
        if len(code) <= length:
            return None
        length += 1
    port, size = _access(current, front, code)
    if not may_use(current, port, size):
        return None
    if opcode in _STRINGS:
        return length if _move_string(current, front, size, is_64=is_64) else 0
    if opcode in _READS:
        read_nothing(current, size)
    return length


def is_allowed(current: Current, front: Opcode, code: bytes) -> bool:
    """Whether `code` is an in or out, no string form, of a port that the guest may use."""
    opcode = front.opcode
    if opcode not in PORT_OPCODES or opcode in _STRINGS:
        return False
    if opcode in _IMMEDIATE and len(code) <= front.length:
        return False
    return may_use(current, *_access(current, front, code))


def _access(current: Current, front: Opcode, code: bytes) -> tuple[int, int]:
    """The port of an instruction, and how many bytes it moves."""
    opcode = front.opcode
    port = code[front.length] if opcode in _IMMEDIATE else current.state.gpr(RDX) & _M16
    return port, 1 if not opcode & 1 else 2 if _OPERAND_SIZE in front.prefixes else 4


def may_use(current: Current, port: int, size: int) -> bool:
    """Whether the guest, where it is, may access `size` bytes of ports from `port`."""
    if current.iopl_permits:
        return True
    vcpu = current.vcpu
    if port + size > vcpu.iobitmap_ports:
        return False
    bits = _bitmap_bits(current, vcpu.iobitmap_vaddr + (port >> 3))
    return not bits >> (port & 7) & (1 << size) - 1


def _bitmap_bits(current: Current, vaddr: int) -> int:
    """Two bytes of the bitmap, which the guest's kernel maps; ones where it does not."""
    state, vcpu = current.state, current.vcpu
    cr3 = state.cr3
    if vcpu.width.is_64 and not vcpu.kernel_mode:
        state.cr3 = vcpu.root_mfn << PAGE_SHIFT
    try:
        found = [_byte(current, vaddr + idx) for idx in range(2)]
    finally:
        state.cr3 = cr3
    return found[0] | found[1] << 8


def _byte(current: Current, vaddr: int) -> int:
    try:
        return current.mem.read_raw(vaddr, 1)[0]
    except GuestFault:
        return 0xFF


def read_nothing(current: Current, size: int) -> None:
    """Put all ones into AL, AX or EAX."""
    state = current.state
    ones = (1 << 8 * size) - 1
    kept = 0 if size == 4 else state.gpr(RAX) & ~ones
    state.set_gpr(RAX, kept | ones)


def _move_string(current: Current, front: Opcode, size: int, *, is_64: bool) -> bool:
    """ins and outs (SDM 2 "INS"): one element, or as many as (E/R)CX says; whether that is all."""
    state = current.state
    repeats = bool(front.prefixes & _REPEATS)
    mask = (_M32 if _ADDRESS_SIZE in front.prefixes else _M64) if is_64 else _M32
    if not is_64 and _ADDRESS_SIZE in front.prefixes:
        mask = _M16
    left = state.gpr(RCX) & mask if repeats else 1
    for _ in range(min(left, _AT_ONCE)):
        _move_element(current, front, size, mask, is_64=is_64)
        if repeats:
            left -= 1
            _set_masked(current, RCX, left, mask)
        else:
            return True
    if left:
        # it is executed again; without this no time would pass between
        current.cpu.clock.charge_ps(_AT_ONCE * _PS_PER_ELEMENT)
        current.cpu.request_stop()
    return not left


def _move_element(current: Current, front: Opcode, size: int, mask: int, *, is_64: bool) -> None:
    state = current.state
    is_in = front.opcode in _INS
    index = RDI if is_in else RSI
    offset = state.gpr(index) & mask
    segment = ES if is_in else _segment_of(front)
    base = state.segment(segment).base if not is_64 or segment in (FS, GS) else 0
    vaddr = base + offset & (_M64 if is_64 else _M32)
    try:
        if is_in:
            current.mem.write_raw(vaddr, b"\xff" * size)
        else:
            current.mem.read_raw(vaddr, size)
    except GuestFault as fault:
        raise MemoryFault(fault.vaddr, write=fault.write, present=fault.present) from None
    step = -size if state.rflags & EFLAGS_DF else size
    _set_masked(current, index, offset + step, mask)


def _segment_of(front: Opcode) -> int:
    """The segment of outs: DS, or what a prefix says."""
    return next((_SEGMENTS[prefix] for prefix in front.prefixes if prefix in _SEGMENTS), DS)


def _set_masked(current: Current, register: int, value: int, mask: int) -> None:
    """Set as much of a register as the address size covers; 32 bits clear the rest."""
    state = current.state
    kept = state.gpr(register) & ~_M16 if mask == _M16 else 0
    state.set_gpr(register, value & mask | kept)
