"""Privileged instructions of a guest's kernel, done on its behalf.

A PV kernel runs below ring 0, so these fault with #GP(0); Xen decodes them and does what the guest
may have done (priv_op_* in Xen's arch/x86/pv/emul-priv-op.c). What is refused goes back to the
guest as the #GP it was. `hlt` and `invlpg` are refused as in Xen: guests have hypercalls for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.abi.errors import XenError
from hypervisor.domain.domain import CR2_OFFSET
from hypervisor.mm.guest_memory import GuestFault
from hypervisor.traps import msr
from hypervisor.traps.cpuid import cpuid
from hypervisor.traps.current import Current
from hypervisor.traps.ports import PORT_OPCODES, emulate_port, is_allowed
from hypervisor.x86.decode import MAX_INSTRUCTION, Opcode, modrm_registers, opcode_of
from hypervisor.x86.flags import (
    CR0_TS,
    CR4_DE,
    CS,
    DR7_ENABLES,
    DR7_GD,
    RAX,
    RBX,
    RCX,
    RDX,
)

FORCED_CPUID: Final = bytes.fromhex(
    "0f0b78656e0fa2"
)  # ud2; "xen"; cpuid (XEN_CPUID in arch-x86/xen.h)
_M32: Final = 0xFFFF_FFFF


class Emulator:
    """Emulates for the guest on the CPU; `new_baseptr` and `now_ns` belong to layers above."""

    def __init__(
        self,
        current: Current,
        now_ns: Callable[[], int],
        new_baseptr: Callable[[int], bool],
    ) -> None:
        self._current = current
        self._now_ns = now_ns
        self._new_baseptr = new_baseptr

    # --- entry points -------------------------------------------------------------------
    def privileged(self) -> bool:
        """Emulate the instruction that raised #GP(0); False if refused.

        User mode gets ports, cli and sti, where it may use them; the rest is the kernel's alone.
        Raises MemoryFault where an operand in memory cannot be reached.
        """
        code = self._fetch()
        is_64 = self._is_64_bit_code()
        front = opcode_of(code, is_64=is_64)
        if front is None:
            return False
        length = self._do(front, code)
        if length is None:
            return False
        self._advance(length)
        return True

    def is_allowed_port(self, code: bytes) -> bool:
        """Whether `code`, at RIP, is an in or out that the guest may do; of string forms, no."""
        front = opcode_of(code, is_64=self._is_64_bit_code())
        return front is not None and is_allowed(self._current, front, code)

    def forced_cpuid(self) -> bool:
        """Emulate cpuid behind its PV prefix, whose ud2 raised #UD; False if it is not that."""
        try:
            code = self._current.mem.read_raw(self._linear_rip, len(FORCED_CPUID))
        except GuestFault:
            return False
        if code != FORCED_CPUID:
            return False
        self.cpuid()
        self._advance(len(FORCED_CPUID))
        return True

    def cpuid(self) -> None:
        """Answer cpuid into the registers."""
        state = self._current.state
        leaf, subleaf = state.gpr(RAX) & _M32, state.gpr(RCX) & _M32
        answer = cpuid(leaf, subleaf, is_64=self._current.vcpu.width.is_64)
        for register, value in zip((RAX, RBX, RCX, RDX), answer, strict=True):
            state.set_gpr(register, value)

    # --- decoding -------------------------------------------------------------------------
    def _fetch(self) -> bytes:
        """Up to 15 bytes of code at RIP; fewer where the next page cannot be read."""
        current = self._current
        vaddr = self._linear_rip
        to_page_end = min(MAX_INSTRUCTION, 4096 - (vaddr & 0xFFF))
        try:
            code = current.mem.read_raw(vaddr, to_page_end)
            return code + current.mem.read_raw(vaddr + to_page_end, MAX_INSTRUCTION - to_page_end)
        except GuestFault:
            pass
        try:
            return current.mem.read_raw(vaddr, to_page_end)
        except GuestFault:
            return b""

    @property
    def _linear_rip(self) -> int:
        state = self._current.state
        vaddr = state.segment_base(CS) + state.rip
        return vaddr if self._current.vcpu.width.is_64 else vaddr & _M32

    def _is_64_bit_code(self) -> bool:
        return bool(self._current.state.segment_flags(CS) >> 21 & 1)

    def _advance(self, length: int) -> None:
        state = self._current.state
        rip = state.rip + length
        state.rip = rip if self._is_64_bit_code() else rip & _M32
        self._current.vcpu.stats.emulated += 1

    def _do(self, front: Opcode, code: bytes) -> int | None:
        """Do the instruction; its length, 0 if it is to be executed again, None if refused."""
        opcode = front.opcode
        if opcode in (0xFA, 0xFB):  # cli, sti: the guest's interrupt flag is its event mask
            return front.length if self._current.iopl_permits else None
        if opcode in PORT_OPCODES:
            return emulate_port(self._current, front, code, is_64=self._is_64_bit_code())
        handler = _TWO_BYTE.get(opcode)
        if handler is None or not self._current.in_kernel:
            return None
        if opcode in _WITH_MODRM and len(code) <= front.length:
            return None  # the CPU had a translation of the next page that is not there any more
        return handler(self, front, code) or None

    # --- control and debug registers ------------------------------------------------------------
    def _mov_from_cr(self, front: Opcode, code: bytes) -> int:
        number, register = self._registers(front, code)
        vcpu = self._current.vcpu
        match number:
            case 0:
                value = (self._current.state.cr0 & ~CR0_TS) | (vcpu.cr0 & CR0_TS)
            case 2:
                value = self._guest_cr2()
            case 3:
                value = self._guest_cr3()
            case 4:
                value = vcpu.cr4
            case _:
                return 0
        self._current.state.set_gpr(register, value)
        return front.length + 1

    def _mov_to_cr(self, front: Opcode, code: bytes) -> int:
        number, register = self._registers(front, code)
        current = self._current
        value = current.state.gpr(register)
        match number:
            case 0:
                if (value ^ current.state.cr0) & ~CR0_TS & _M32:
                    return 0
                set_task_switched(current, bool(value & CR0_TS))
            case 2:
                self._set_guest_cr2(value)
            case 3:
                try:
                    if not self._new_baseptr(self._root_of_cr3(value)):
                        current.state.rip -= front.length + 1  # not done yet: once more
                except XenError:
                    return 0
            case 4:
                self._set_guest_cr4(value)
            case _:
                return 0
        return front.length + 1

    def _set_guest_cr4(self, value: int) -> None:
        """Take over the bits that are the guest's; the others stay, without a word."""
        vcpu, state = self._current.vcpu, self._current.state
        vcpu.cr4 = value & PV_CR4 | vcpu.cr4 & ~PV_CR4
        state.cr4 = vcpu.cr4 & PV_CR4 | state.cr4 & ~PV_CR4

    def _guest_cr2(self) -> int:
        vcpu = self._current.vcpu
        size = vcpu.width.word_bytes
        at = vcpu.vcpu_info_maddr + CR2_OFFSET[size]
        return int.from_bytes(self._current.view[at : at + size], "little")

    def _set_guest_cr2(self, value: int) -> None:
        vcpu = self._current.vcpu
        size = vcpu.width.word_bytes
        at = vcpu.vcpu_info_maddr + CR2_OFFSET[size]
        raw = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        self._current.view[at : at + size] = raw

    def _guest_cr3(self) -> int:
        """The root's frame number; PAE folds its high bits into the low ones (xen_pfn_to_cr3)."""
        mfn = self._current.vcpu.root_mfn
        if self._current.vcpu.width.is_64:
            return mfn << 12
        return (mfn << 12 | mfn >> 20) & _M32

    def _root_of_cr3(self, value: int) -> int:
        if self._current.vcpu.width.is_64:
            return value >> 12
        return (value >> 12 | value << 20) & _M32

    def _mov_from_dr(self, front: Opcode, code: bytes) -> int:
        number, register = self._registers(front, code)
        if number > 7:
            return 0
        self._current.state.set_gpr(register, get_debugreg(self._current, number))
        return front.length + 1

    def _mov_to_dr(self, front: Opcode, code: bytes) -> int:
        number, register = self._registers(front, code)
        if number > 7:
            return 0
        try:
            set_debugreg(self._current, number, self._current.state.gpr(register))
        except ValueError:
            return 0
        return front.length + 1

    def _registers(self, front: Opcode, code: bytes) -> tuple[int, int]:
        return modrm_registers(code[front.length], front.rex)

    # --- the rest --------------------------------------------------------------------------------
    def _clts(self, front: Opcode, code: bytes) -> int:
        set_task_switched(self._current, False)
        return front.length

    def _wbinvd(self, front: Opcode, code: bytes) -> int:
        return front.length  # caches are not modelled: nothing to write back

    def _rdtsc(self, front: Opcode, code: bytes) -> int:
        self._put_edx_eax(self._now_ns())
        return front.length

    def _rdtscp(self, front: Opcode, code: bytes) -> int:
        if code[front.length : front.length + 1] != b"\xf9":
            return 0
        self._put_edx_eax(self._now_ns())
        self._current.state.set_gpr(RCX, 0)
        return front.length + 1

    def _rdmsr(self, front: Opcode, code: bytes) -> int:
        value = msr.read(self._current, self._current.state.gpr(RCX) & _M32, self._now_ns())
        if value is None:
            return 0
        self._put_edx_eax(value)
        return front.length

    def _wrmsr(self, front: Opcode, code: bytes) -> int:
        state = self._current.state
        value = state.gpr(RDX) << 32 & ~_M32 | state.gpr(RAX) & _M32
        return front.length if msr.write(self._current, state.gpr(RCX) & _M32, value) else 0

    def _cpuid(self, front: Opcode, code: bytes) -> int:
        self.cpuid()
        return front.length

    def _put_edx_eax(self, value: int) -> None:
        self._current.state.set_gpr(RAX, value & _M32)
        self._current.state.set_gpr(RDX, value >> 32 & _M32)


_WITH_MODRM: Final = frozenset({0x0F20, 0x0F21, 0x0F22, 0x0F23})
_TWO_BYTE: Final[dict[int, Callable[[Emulator, Opcode, bytes], int]]] = {
    0x0F01: Emulator._rdtscp,
    0x0F06: Emulator._clts,
    0x0F09: Emulator._wbinvd,
    0x0F20: Emulator._mov_from_cr,
    0x0F21: Emulator._mov_from_dr,
    0x0F22: Emulator._mov_to_cr,
    0x0F23: Emulator._mov_to_dr,
    0x0F30: Emulator._wrmsr,
    0x0F31: Emulator._rdtsc,
    0x0F32: Emulator._rdmsr,
    0x0FA2: Emulator._cpuid,
}

#: CR4 bits that a PV guest may change for itself: TSD and DE (PV_CR4_GUEST_VISIBLE_MASK, in part).
PV_CR4: Final = 1 << 2 | 1 << 3


def set_task_switched(current: Current, set_: bool) -> None:
    """CR0.TS as the guest wants it, in its own view and in the CPU (do_fpu_taskswitch)."""
    if set_:
        current.vcpu.cr0 |= CR0_TS
        current.state.cr0 |= CR0_TS
    else:
        current.vcpu.cr0 &= ~CR0_TS
        current.state.cr0 &= ~CR0_TS


def get_debugreg(current: Current, number: int) -> int:
    """A debug register of the guest; 4 and 5 are 6 and 7 (SDM 3B 17.2.2)."""
    vcpu = current.vcpu
    match number:
        case 0 | 1 | 2 | 3:
            return vcpu.dr[number]
        case 4 | 6:
            return vcpu.dr6
        case _:
            return vcpu.dr7


def set_debugreg(current: Current, number: int, value: int) -> None:
    """Set a debug register. Raises ValueError for what Xen refuses (set_debugreg: addresses in its
    own region, general detect)."""
    vcpu = current.vcpu
    match number:
        case 0 | 1 | 2 | 3:
            if not current.mem.is_guest_range(value, 1):
                raise ValueError(f"breakpoint address {value:#x} is not the guest's")
            vcpu.dr[number] = value
        case 4 | 6:
            vcpu.dr6 = value & 0xFFFF_EFFF | 0xFFFF_0FF0
        case _:
            if value & DR7_GD:
                raise ValueError("DR7.GD is Xen's")
            if value & DR7_ENABLES and not vcpu.cr4 & CR4_DE and _has_io_breakpoint(value):
                raise ValueError(f"an I/O breakpoint in DR7 {value:#x}, without CR4.DE")
            vcpu.dr7 = value & 0xFFFF_0FFF & ~0xD800 | 0x400


def _has_io_breakpoint(dr7: int) -> bool:
    """Whether R/W of any breakpoint is 2 (SDM 3B 17.2.4)."""
    return any(dr7 >> at & 3 == 2 for at in range(16, 32, 4))
