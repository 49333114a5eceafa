"""Where Xen enters the guest: trap table, callbacks, kernel stack; and how the guest comes back.

set_trap_table, set_callbacks, callback_op, stack_switch, iret, nmi_op, and the per-vCPU CPU state
that has hypercalls of its own: segment bases, debug registers, CR0.TS (Xen's
arch/x86/pv/callback.c, iret.c, misc-hypercalls.c).
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.arch_x86_64 import FLAT_KERNEL_CS64, Segbase
from hypervisor.abi.callback import (
    CALLBACKF_MASK_EVENTS,
    CallbackOp,
    CallbackRegister,
    CallbackType,
    CallbackUnregister,
)
from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.nmi import XennmiOp
from hypervisor.abi.xen import TI_DPL, TI_IF, HypercallNr, TrapInfo
from hypervisor.domain.domain import Callback, TrapGate
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Absent, SubOp, call_subop, hypercall, subops
from hypervisor.mm.descriptors import kernel_ring
from hypervisor.traps import iret as traps_iret
from hypervisor.traps.emulate import get_debugreg, set_debugreg, set_task_switched
from hypervisor.traps.msr import set_base
from hypervisor.traps.segments import SegmentFault, data_segment
from hypervisor.x86.flags import (
    GS,
    MSR_FS_BASE,
    MSR_GS_BASE,
    MSR_KERNEL_GS_BASE,
    is_canonical,
)


def _fixed_selector(caller: Caller, selector: int) -> int:
    """A code selector with the RPL of the guest's kernel at least (fixup_guest_code_selector)."""
    ring = kernel_ring(caller.width)
    return selector if selector & 3 >= ring else selector & ~3 | ring


# --- the trap table -------------------------------------------------------------------------------
@hypercall(HypercallNr.SET_TRAP_TABLE, args=1)
def set_trap_table(caller: Caller, vaddr: int) -> int:
    """Take over gates up to one with address 0; a null table clears them all."""
    gates = caller.vcpu.gates
    if vaddr == 0:
        for vector in range(len(gates)):
            gates[vector] = TrapGate()
        return 0
    shape = layout(TrapInfo, caller.width)
    while True:
        info = shape.unpack_from(caller.mem.read(vaddr, shape.size))
        if info.address == 0:
            return 0
        gates[info.vector] = TrapGate(
            cs=_fixed_selector(caller, info.cs),
            address=info.address,
            dpl=info.flags & TI_DPL,
            masks_events=bool(info.flags & TI_IF),
        )
        vaddr += shape.size


# --- callbacks
# ---------------------------------------------------------------------------------------
@hypercall(HypercallNr.SET_CALLBACKS, args=4)
def set_callbacks(caller: Caller, a: int, b: int, c: int, d: int) -> int:
    """Event and failsafe callback: (cs, eip) twice, or for 64 bits (event, failsafe, syscall)."""
    vcpu = caller.vcpu
    if caller.width.is_64:
        vcpu.event_callback = Callback(FLAT_KERNEL_CS64, a)
        vcpu.failsafe_callback = Callback(FLAT_KERNEL_CS64, b)
        vcpu.syscall_callback = Callback(FLAT_KERNEL_CS64, c)
        return 0
    vcpu.event_callback = Callback(_fixed_selector(caller, a), b)
    vcpu.failsafe_callback = Callback(_fixed_selector(caller, c), d)
    return 0


def register(caller: Caller, arg: CallbackRegister) -> None:
    """CALLBACKOP_register."""
    masks = bool(arg.flags & CALLBACKF_MASK_EVENTS)
    if caller.width.is_64:
        if not is_canonical(arg.address):
            raise XenError(Errno.EINVAL, f"callback address {arg.address:#x} is not canonical")
        callback = Callback(FLAT_KERNEL_CS64, arg.address, masks)
    else:
        cs, eip = arg.address & 0xFFFF, arg.address >> 32
        callback = Callback(_fixed_selector(caller, cs), eip, masks)
    _set_callback(caller, arg.type, callback)


def unregister(caller: Caller, arg: CallbackUnregister) -> None:
    """CALLBACKOP_unregister: the event and failsafe callbacks must stay."""
    if arg.type in (CallbackType.EVENT, CallbackType.FAILSAFE, CallbackType.SYSCALL):
        raise XenError(Errno.EINVAL, f"callback {arg.type} cannot be unregistered")
    _set_callback(caller, arg.type, Callback())


def _set_callback(caller: Caller, kind: int, callback: Callback) -> None:
    vcpu = caller.vcpu
    match kind:
        case CallbackType.EVENT:
            vcpu.event_callback = callback
        case CallbackType.FAILSAFE:
            vcpu.failsafe_callback = callback
        case CallbackType.SYSCALL if caller.width.is_64:
            vcpu.syscall_callback = callback
        case CallbackType.SYSCALL32 if caller.width.is_64:
            vcpu.syscall32_callback = callback
        case CallbackType.SYSENTER | CallbackType.SYSENTER_DEPRECATED:
            vcpu.sysenter_callback = callback
        case CallbackType.NMI:
            vcpu.nmi_callback = callback
        case _:
            raise XenError(Errno.ENOSYS, f"callback type {kind} is unknown")


CALLBACK_OPS: Final = subops(
    HypercallNr.CALLBACK_OP,
    {
        CallbackOp.REGISTER: SubOp(CallbackRegister, register),
        CallbackOp.UNREGISTER: SubOp(CallbackUnregister, unregister),
    },
)


@hypercall(HypercallNr.CALLBACK_OP, args=2)
def callback_op(caller: Caller, operation: int, vaddr: int) -> int:
    """Set or clear one callback."""
    return call_subop(caller, CALLBACK_OPS, operation, vaddr)


NMI_OPS: Final = subops(
    HypercallNr.NMI_OP,
    {
        XennmiOp.REGISTER_CALLBACK: Absent(
            Errno.EINVAL, "only the hardware domain's vCPU 0 gets NMIs"
        ),
        XennmiOp.UNREGISTER_CALLBACK: Absent(Errno.EINVAL, "no NMI callback can be registered"),
    },
)


@hypercall(HypercallNr.NMI_OP, args=2)
def nmi_op(caller: Caller, operation: int, vaddr: int) -> int:
    """NMI callbacks."""
    return call_subop(caller, NMI_OPS, operation, vaddr)


# --- kernel stack and return
# ------------------------------------------------------------------------------
@hypercall(HypercallNr.STACK_SWITCH, args=2)
def stack_switch(caller: Caller, ss: int, sp: int) -> int:
    """The stack that Xen enters the guest's kernel on."""
    ring = kernel_ring(caller.width)
    caller.vcpu.kernel_ss = ss & 0xFFFF if ss & 3 >= ring else ss & 0xFFFC | ring
    caller.vcpu.kernel_sp = sp
    return 0


@hypercall(HypercallNr.IRET, args=0)
def iret(caller: Caller) -> None:
    """Back to what a handler interrupted; the result register comes from the frame."""
    traps_iret.iret(caller.current)
    caller.host.after_iret()


# --- per-vCPU CPU state
# ---------------------------------------------------------------------------------------
@hypercall(HypercallNr.SET_SEGMENT_BASE, args=2)
def set_segment_base(caller: Caller, which: int, base: int) -> int:
    """FS and GS bases of 64-bit guests."""
    if not caller.width.is_64:
        raise XenError(Errno.ENOSYS, "32-bit guests have descriptors for that")
    if which == Segbase.GS_USER_SEL:
        _load_gs_user(caller, base & 0xFFFF)
        return 0
    if not is_canonical(base):
        raise XenError(Errno.EINVAL, f"segment base {base:#x} is not canonical")
    match which:
        case Segbase.FS:
            set_base(caller.current, MSR_FS_BASE, base)
        case Segbase.GS_USER:
            set_base(caller.current, MSR_KERNEL_GS_BASE, base)
        case Segbase.GS_KERNEL:
            set_base(caller.current, MSR_GS_BASE, base)
        case _:
            raise XenError(Errno.EINVAL, f"segment base {which} is unknown")
    return 0


def _load_gs_user(caller: Caller, selector: int) -> None:
    """Load GS for user mode: its base goes to the one not in use. A bad selector loads null."""
    current = caller.current
    try:
        segment = data_segment(current, selector, 3)
    except SegmentFault:
        segment, selector = data_segment(current, 0, 3), 0
    kernel_base = current.state.segment(GS).base
    current.state.set_segment(GS, selector, kernel_base, segment.limit, segment.flags)
    current.vcpu.gs_base_user = segment.base


@hypercall(HypercallNr.FPU_TASKSWITCH, args=1)
def fpu_taskswitch(caller: Caller, set_: int) -> int:
    """Set or clear CR0.TS."""
    set_task_switched(caller.current, bool(set_))
    return 0


@hypercall(HypercallNr.SET_DEBUGREG, args=2)
def set_debugreg_(caller: Caller, number: int, value: int) -> int:
    """Write a debug register."""
    if number > 7:
        raise XenError(Errno.ENODEV, f"debug register {number} does not exist")
    try:
        set_debugreg(caller.current, number, value)
    except ValueError as refusal:
        raise XenError(Errno.EPERM, str(refusal)) from None
    return 0


@hypercall(HypercallNr.GET_DEBUGREG, args=1)
def get_debugreg_(caller: Caller, number: int) -> int:
    """Read a debug register; there is no way to report an error but its number."""
    if number > 7:
        return -Errno.EINVAL
    return get_debugreg(caller.current, number)
