"""The iret hypercall: back from a handler, with the event mask and the segments of before.

32-bit, at ESP:  EAX EIP CS EFLAGS [ESP SS], the last two if CS is of ring 2 or 3.
64-bit, at RSP:  RAX R11 RCX flags RIP CS RFLAGS RSP SS (struct iret_context).

Rules: compat_iret in Xen's arch/x86/pv/iret.c, do_iret beside it. A selector that cannot be loaded
becomes an exception at the place returned to, as it would be for the CPU's own instruction.
"""

from __future__ import annotations

import struct
from typing import Final

from hypervisor.abi.arch_x86_64 import (
    FLAT_USER_CS32,
    FLAT_USER_CS64,
    FLAT_USER_SS64,
    VGCF_IN_SYSCALL,
)
from hypervisor.abi.errors import DomainCrash
from hypervisor.domain.trap_state import EXCEPTIONS
from hypervisor.mm.guest_memory import GuestFault
from hypervisor.traps.bounce import load_kernel_64, to_gate, toggle_guest_mode
from hypervisor.traps.current import VMASST_ARCHITECTURAL_IOPL, Current
from hypervisor.traps.segments import (
    SegmentFault,
    code_segment,
    null_privileged_data_segments,
    stack_segment,
)
from hypervisor.x86.flags import (
    CS,
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_IOPL_SHIFT,
    EFLAGS_VM,
    R11,
    RAX,
    RCX,
    RSP,
    SS,
    Vector,
    is_canonical,
)

_FRAME_32: Final = struct.Struct("<IIII")
_STACK_32: Final = struct.Struct("<II")
_FRAME_64: Final = struct.Struct("<9Q")
_M32: Final = 0xFFFF_FFFF


def iret(current: Current) -> None:
    """Do the hypercall for the guest on the CPU. Raises DomainCrash for a frame Xen refuses."""
    if current.vcpu.width.is_64:
        _iret_64(current)
    else:
        _iret_32(current)


def _iret_32(current: Current) -> None:
    state = current.state
    base = state.segment_base(SS)
    esp = state.gpr(RSP)
    eax, eip, cs, eflags = _FRAME_32.unpack(_pop(current, (base + esp) & _M32, _FRAME_32.size))
    cs &= 0xFFFF
    cpl = cs & 3
    if cpl == 0:
        _refuse_ring_0(cs)
    _set_virtual_flags(current, eflags)
    eflags = eflags & ~(EFLAGS_IOPL | EFLAGS_VM) | EFLAGS_IF | EFLAGS_FIXED
    state.set_gpr(RAX, eax)
    if cpl == 1:
        target_ss, target_esp = state.selector(SS), (esp + 16) & _M32
    else:
        target_esp, target_ss = _STACK_32.unpack(_pop(current, (base + esp + 16) & _M32, 8))
        target_ss &= 0xFFFF
    try:
        code = code_segment(current, cs)
        stack = stack_segment(current, target_ss, cpl) if cpl > 1 else None
    except SegmentFault as fault:
        state.rip = eip
        state.rflags = eflags
        state.set_gpr(RSP, target_esp)
        _raise_at_target(current, fault, cs, target_ss, cpl)
        return
    state.rip = eip
    state.rflags = eflags
    state.set_gpr(RSP, target_esp)
    state.set_code_and_stack(cs, code, target_ss, stack or state.segment(SS)[1:], cpl)
    if cpl > 1:
        null_privileged_data_segments(current, cpl)


def _refuse_ring_0(cs: int) -> None:
    raise DomainCrash(f"iret to ring 0: cs {cs:#x}")


def _iret_64(current: Current) -> None:
    state = current.state
    vcpu = current.vcpu
    raw = _pop(current, state.gpr(RSP), _FRAME_64.size)
    rax, r11, rcx, flags, rip, cs, rflags, rsp, ss = _FRAME_64.unpack(raw)
    cs &= 0xFFFF
    to_user = cs & 3 == 3
    if to_user:
        if vcpu.user_root_mfn == 0:
            raise DomainCrash("iret to user mode without a user page table")
        toggle_guest_mode(current)
    _set_virtual_flags(current, rflags)
    state.rflags = rflags & ~(EFLAGS_IOPL | EFLAGS_VM) | EFLAGS_IF | EFLAGS_FIXED
    state.set_gpr(RAX, rax)
    state.set_gpr(RSP, rsp)
    state.rip = rip
    if flags & VGCF_IN_SYSCALL:
        # as sysret leaves them; the guest asked for it by the flag
        state.set_gpr(RCX, rip)
        state.set_gpr(R11, state.rflags)
    else:
        state.set_gpr(R11, r11)
        state.set_gpr(RCX, rcx)
    if not to_user:
        load_kernel_64(current)
        return
    if flags & VGCF_IN_SYSCALL and cs != FLAT_USER_CS32:
        cs, ss = FLAT_USER_CS64, FLAT_USER_SS64  # sysret has no others
    try:
        if not is_canonical(rip):
            raise SegmentFault(Vector.GP, 0)
        code = code_segment(current, cs | 3)
        stack = stack_segment(current, (ss | 3) & 0xFFFF, 3)
    except SegmentFault as fault:
        _raise_at_target(current, fault, cs | 3, (ss | 3) & 0xFFFF, 3)
        return
    state.set_code_and_stack(cs | 3, code, (ss | 3) & 0xFFFF, stack, 3)


def _set_virtual_flags(current: Current, eflags: int) -> None:
    """The event mask and the virtual IOPL come back with the flags."""
    current.mask_events(not eflags & EFLAGS_IF)
    if current.dom.vm_assist & VMASST_ARCHITECTURAL_IOPL:
        current.vcpu.iopl = eflags >> EFLAGS_IOPL_SHIFT & 3


def _raise_at_target(current: Current, fault: SegmentFault, cs: int, ss: int, cpl: int) -> None:
    """The fault belongs to the place returned to: its frame shows the refused selectors."""
    state = current.state
    for register, selector in ((CS, cs), (SS, ss)):
        _, base, limit, flags = state.segment(register)
        state.set_segment(register, selector, base, limit, flags)
    state.set_cpl(cpl)
    current.vcpu.traps.words[EXCEPTIONS] += 1
    to_gate(current, current.vcpu.gates[fault.vector], fault.error_code)


def _pop(current: Current, vaddr: int, size: int) -> bytes:
    try:
        return current.mem.read_raw(vaddr, size)
    except GuestFault as fault:
        current.lost_vaddr = fault.vaddr
        raise DomainCrash(f"the frame for iret: {fault}") from None
