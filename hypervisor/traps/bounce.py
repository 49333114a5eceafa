"""Entering a guest's handler: the frames that Xen builds on the guest's kernel stack.

x86_32, x86_32p, from low to high addresses:

    [DS ES FS GS]  [error code]  EIP  CS | mask << 16  EFLAGS  [ESP SS]

the last two when the stack changed (from ring 2 or 3 to kernel_ss:kernel_esp), the segments for the
failsafe callback only. x86_64:

    RCX R11  [DS ES FS GS]  [error code]  RIP  CS | mask << 32  RFLAGS  RSP  SS

always with the stack, aligned down to 16. `mask` is the event mask before; the guest's iret puts it
back. Rules: create_bounce_frame in Xen's arch/x86/x86_64/entry.S and compat/entry.S.
"""

from __future__ import annotations

import struct
from typing import Final

from hypervisor.abi.arch_x86_64 import FLAT_KERNEL_CS64, FLAT_KERNEL_SS64
from hypervisor.abi.errors import DomainCrash
from hypervisor.domain.trap_state import Callback, TrapGate
from hypervisor.mm.guest_memory import GuestFault
from hypervisor.traps.current import Current
from hypervisor.traps.fast_context import DIRECT_VECTOR
from hypervisor.traps.segments import SegmentFault, code_segment, stack_segment
from hypervisor.x86.flags import (
    CS,
    DS,
    EFLAGS_AC,
    EFLAGS_IOPL,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VM,
    ES,
    FS,
    GS,
    R11,
    RCX,
    RSP,
    SS,
)

_CLEARED_32: Final = EFLAGS_TF | EFLAGS_RF | EFLAGS_NT | EFLAGS_VM
_CLEARED_64: Final = _CLEARED_32 | EFLAGS_AC
_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF

_CODE_64: Final = (0, _M32, 0x00AFFB00)
_STACK_64: Final = (0, _M32, 0x00CFF300)

_PACK32: Final = [struct.Struct(f"<{n}I") for n in range(12)]
_PACK64: Final = [struct.Struct(f"<{n}Q") for n in range(14)]


def to_gate(current: Current, gate: TrapGate | Callback, error_code: int | None) -> None:
    """Enter the guest at `gate`, its frame on the kernel stack.

    Raises DomainCrash if there is no handler or the frame cannot be written: a PV guest has no
    double fault.
    """
    if gate.address == 0:
        raise DomainCrash("an exception has no handler in the guest's trap table")
    extra = () if error_code is None else (error_code,)
    _enter(current, gate, extra, gate.masks_events)


def is_direct(current: Current, vector: int) -> bool:
    """Whether `int vector` goes to the guest's handler without an entry into Xen.

    As 32-bit Xen had it (init_int80_direct_trap in its arch/x86/x86_32/traps.c): the guest's gate
    for int 0x80 stood in the CPU's own table, unless it masks events, which no CPU can do.
    """
    if vector != DIRECT_VECTOR or current.vcpu.width.is_64:
        return False
    gate = current.vcpu.gates[vector]
    return bool(gate.address) and not gate.masks_events and gate.dpl >= current.virtual_cpl


def to_direct_gate(current: Current, vector: int) -> None:
    """Do what the CPU does at a trap gate: the frame has its own CS and EFLAGS, not Xen's.

    No event is looked for and nothing is counted, since Xen does not notice. Raises SegmentFault,
    nothing done, where the CPU finds no code at the gate, DomainCrash where it finds no stack.
    """
    gate = current.vcpu.gates[vector]
    code_segment(current, gate.cs)
    _enter_32(current, gate.cs, gate.address, (), is_direct=True)


def to_upcall(current: Current) -> None:
    """Enter the guest's event callback; it runs with events masked."""
    callback = current.vcpu.event_callback
    if callback.address == 0:
        raise DomainCrash("an event is pending and the guest has no event callback")
    current.vcpu.stats.upcalls += 1
    _enter(current, callback, (), masks_events=True)


def to_failsafe(current: Current, selectors: tuple[int, ...]) -> None:
    """Enter the failsafe callback: of `selectors`, for DS ES FS GS, one could not be reloaded."""
    callback = current.vcpu.failsafe_callback
    if callback.address == 0:
        raise DomainCrash("a segment could not be reloaded and there is no failsafe callback")
    _enter(current, callback, selectors, callback.masks_events)


def _enter(
    current: Current, gate: TrapGate | Callback, extra: tuple[int, ...], masks_events: bool
) -> None:
    """Build the frame with `extra` below RIP, go to the handler."""
    if current.vcpu.width.is_64:
        _enter_64(current, gate.address, extra)
    else:
        _enter_32(current, gate.cs, gate.address, extra)
    if masks_events:
        current.mask_events(True)


def _enter_32(
    current: Current, cs: int, eip: int, extra: tuple[int, ...], *, is_direct: bool = False
) -> None:
    state = current.state
    vcpu = current.vcpu
    eflags = state.rflags
    if eflags & EFLAGS_VM:
        eflags = _out_of_vm86(current)
    old_cs = state.selector(CS)
    if is_direct:
        frame: tuple[int, ...] = (state.rip, old_cs, eflags)
    else:
        old_cs |= current.events_masked << 16
        frame = (*extra, state.rip, old_cs, current.virtual_eflags(eflags))
    ss, base, limit, flags = state.segment(SS)
    stack = base, limit, flags
    esp = state.gpr(RSP)
    try:
        code = code_segment(current, cs)
        if state.cpl >= 2:
            frame += (esp & _M32, ss)
            ss, esp = vcpu.kernel_ss, vcpu.kernel_sp
            stack = stack_segment(current, ss, cs & 3)
    except SegmentFault as fault:
        raise DomainCrash(f"the handler's segment cannot be loaded: {fault.vector.name}") from None
    esp = (esp - 4 * len(frame)) & _M32
    _push(current, (stack[0] + esp) & _M32, _PACK32[len(frame)].pack(*[v & _M32 for v in frame]))
    state.set_code_and_stack(cs, code, ss, stack, cs & 3)
    state.set_gpr(RSP, esp)
    state.rip = eip
    state.rflags = eflags & ~_CLEARED_32


def _enter_64(current: Current, rip: int, extra: tuple[int, ...]) -> None:
    state = current.state
    vcpu = current.vcpu
    rflags = state.rflags
    if rflags & EFLAGS_VM:
        rflags = _out_of_vm86(current)
    cs = state.selector(CS)
    ss = state.selector(SS)
    rsp = state.gpr(RSP)
    from_kernel = vcpu.kernel_mode
    if from_kernel:
        stack = rsp
        cs &= ~3  # by this the guest knows that its kernel was interrupted
    else:
        stack = vcpu.kernel_sp
        toggle_guest_mode(current)
    masked = current.events_masked
    frame = (
        state.gpr(RCX),
        state.gpr(R11),
        *extra,
        state.rip,
        cs | masked << 32,
        current.virtual_eflags(rflags),
        rsp,
        ss,
    )
    stack = ((stack & ~15) - 8 * len(frame)) & _M64
    _push(current, stack, _PACK64[len(frame)].pack(*frame))
    load_kernel_64(current)
    state.set_gpr(RSP, stack)
    state.rip = rip
    state.rflags = rflags & ~_CLEARED_64


def _out_of_vm86(current: Current) -> int:
    """Code that got into virtual-8086 mode is user mode in its frame; the flags without a trace.

    No PV guest can be there: a CPU takes EFLAGS.VM from an iret in ring 0 only. The engine takes it
    from any ring (return_to_vm86 in QEMU's seg_helper.c), and IOPL with it, and CS then is any
    number, also one that says "kernel" to whoever reads the frame. Data segments become null, as
    the CPU leaves them (SDM 3B 20.3.1.1).
    """
    state = current.state
    _, base, limit, flags = state.segment(CS)
    state.set_segment(CS, state.selector(CS) | 3, base, limit, flags)
    for register in (ES, DS, FS, GS):
        state.set_segment(register, 0, 0, 0, 0)
    state.rflags &= ~(EFLAGS_VM | EFLAGS_IOPL)
    return state.rflags


def load_kernel_64(current: Current) -> None:
    """Let CS and SS be a 64-bit kernel's. It runs at CPL 1 of the engine, so that its translations
    and those of its user space lie in different TLBs; the selectors are ring 3's, as it expects."""
    current.state.set_code_and_stack(FLAT_KERNEL_CS64, _CODE_64, FLAT_KERNEL_SS64, _STACK_64, 1)


def toggle_guest_mode(current: Current) -> None:
    """Change between a 64-bit guest's kernel and user mode: page tables and GS base."""
    state = current.state
    vcpu = current.vcpu
    vcpu.kernel_mode = not vcpu.kernel_mode
    gs = state.segment(GS)
    state.set_segment(GS, gs.selector, vcpu.gs_base_user, gs.limit, gs.flags)
    vcpu.gs_base_user = gs.base
    root = vcpu.root_mfn if vcpu.kernel_mode else vcpu.user_root_mfn
    state.cr3 = root << 12


def _push(current: Current, vaddr: int, data: bytes) -> None:
    try:
        current.mem.write_raw(vaddr, data)
    except GuestFault as fault:
        current.lost_vaddr = fault.vaddr
        raise DomainCrash(f"a frame for the guest's handler: {fault}") from None
