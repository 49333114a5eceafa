"""Where Xen enters the guest: trap table, callbacks, kernel stack; and how the guest comes back.

set_trap_table, set_callbacks, callback_op, nmi_op, stack_switch, iret (Xen's
arch/x86/pv/callback.c, iret.c, misc-hypercalls.c).
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.arch_x86_32 import FLAT_RING1_CS
from hypervisor.abi.arch_x86_64 import FLAT_KERNEL_CS64
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
from hypervisor.abi.nmi import XennmiCallback, XennmiOp
from hypervisor.abi.xen import TI_DPL, TI_IF, HypercallNr, TrapInfo
from hypervisor.domain.trap_state import Callback, TrapGate
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Preempted, SubOp, call_subop, hypercall, subops
from hypervisor.mm.descriptors import kernel_ring
from hypervisor.traps import iret as traps_iret
from hypervisor.x86.flags import Vector, is_canonical

_GATES_AT_ONCE: Final = 1024  # a table without an end is read in pieces
_CALLBACKS_32: Final = frozenset(
    {
        CallbackType.EVENT,
        CallbackType.FAILSAFE,
        CallbackType.SYSCALL32,
        CallbackType.SYSENTER,
        CallbackType.NMI,
    }
)
_CALLBACKS_64: Final = _CALLBACKS_32 | {CallbackType.SYSCALL}


def _fixed_selector(caller: Caller, selector: int) -> int:
    """A code selector with the RPL of the guest's kernel at least (fixup_guest_code_selector)."""
    ring = kernel_ring(caller.width)
    return selector if selector & 3 >= ring else selector & ~3 | ring


# --- the trap table -------------------------------------------------------------------------------
@hypercall(HypercallNr.SET_TRAP_TABLE, args=1)
def set_trap_table(caller: Caller, vaddr: int) -> int:
    """Take over gates up to one with address 0; a null table clears them all.

    A gate that is refused ends the list, and those before it stay set.
    """
    gates = caller.vcpu.gates
    if vaddr == 0:
        gates[:] = [TrapGate() for _ in gates]
        return 0
    shape = layout(TrapInfo, caller.width)
    for _ in range(_GATES_AT_ONCE):
        info = shape.unpack_from(caller.mem.read(vaddr, shape.size))
        if info.address == 0:
            return 0
        gates[info.vector] = _gate(caller, info)
        vaddr += shape.size
    raise Preempted(vaddr)


def _gate(caller: Caller, info: TrapInfo) -> TrapGate:
    _require_canonical(caller, info.address)
    return TrapGate(
        cs=_fixed_selector(caller, info.cs),
        address=info.address,
        dpl=info.flags & TI_DPL,
        masks_events=bool(info.flags & TI_IF),
    )


def _require_canonical(caller: Caller, address: int) -> None:
    if caller.width.is_64 and not is_canonical(address):
        raise XenError(Errno.EINVAL, f"handler address {address:#x} is not canonical")


# --- callbacks ------------------------------------------------------------------------------------
@hypercall(HypercallNr.SET_CALLBACKS, args=4)
def set_callbacks(caller: Caller, a: int, b: int, c: int, d: int) -> int:
    """Event and failsafe callback: (cs, eip) twice, or for 64 bits (event, failsafe, syscall).

    The older form of callback_op: an address that it would refuse is passed over here.
    """
    if not caller.width.is_64:
        _set_callback(caller, CallbackType.EVENT, Callback(_fixed_selector(caller, a), b))
        _set_callback(caller, CallbackType.FAILSAFE, Callback(_fixed_selector(caller, c), d))
        return 0
    kinds = (CallbackType.EVENT, CallbackType.FAILSAFE, CallbackType.SYSCALL)
    for kind, address in zip(kinds, (a, b, c), strict=True):
        if is_canonical(address):
            _set_callback(caller, kind, Callback(FLAT_KERNEL_CS64, address))
    return 0


def register(caller: Caller, arg: CallbackRegister) -> None:
    """CALLBACKOP_register."""
    masks = bool(arg.flags & CALLBACKF_MASK_EVENTS)
    if caller.width.is_64:
        _require_canonical(caller, arg.address)
        callback = Callback(FLAT_KERNEL_CS64, arg.address, masks)
    else:
        cs, eip = arg.address & 0xFFFF, arg.address >> 32
        callback = Callback(_fixed_selector(caller, cs), eip, masks)
    _set_callback(caller, arg.type, callback)


def unregister(caller: Caller, arg: CallbackUnregister) -> None:
    """CALLBACKOP_unregister: of those there are, only the one for NMIs can be taken back."""
    if arg.type == CallbackType.NMI:
        unregister_nmi(caller)
        return
    errno = Errno.EINVAL if arg.type in _callback_types(caller) else Errno.ENOSYS
    raise XenError(errno, f"callback {arg.type} cannot be unregistered")


def _callback_types(caller: Caller) -> frozenset[CallbackType]:
    """CALLBACKTYPE_sysenter_deprecated went with 32-bit hypervisors; 32-bit guests have but one
    kind of syscall."""
    return _CALLBACKS_64 if caller.width.is_64 else _CALLBACKS_32


def _set_callback(caller: Caller, kind: int, callback: Callback) -> None:
    vcpu = caller.vcpu
    if kind not in _callback_types(caller):
        raise XenError(Errno.ENOSYS, f"callback type {kind} is unknown")
    match kind:
        case CallbackType.EVENT:
            vcpu.event_callback = callback
        case CallbackType.FAILSAFE:
            vcpu.failsafe_callback = callback
        case CallbackType.SYSCALL:
            vcpu.syscall_callback = callback
        case CallbackType.SYSCALL32:
            vcpu.syscall32_callback = callback
        case CallbackType.SYSENTER:
            vcpu.sysenter_callback = callback
        case _:
            _set_nmi_callback(caller, callback.address)


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
    # compat_callback_op says EINVAL where do_callback_op says ENOSYS
    if operation & 0xFFFF_FFFF not in CALLBACK_OPS and not caller.width.is_64:
        raise XenError(Errno.EINVAL, f"operation {operation} is unknown")
    return call_subop(caller, CALLBACK_OPS, operation, vaddr)


# --- NMIs: never raised here, but a kernel may say what it would do -------------------------------
def register_nmi(caller: Caller, arg: XennmiCallback) -> None:
    """XENNMI_register_callback."""
    _require_canonical(caller, arg.handler_address)
    _set_nmi_callback(caller, arg.handler_address)


def unregister_nmi(caller: Caller) -> None:
    """XENNMI_unregister_callback."""
    caller.vcpu.gates[Vector.NMI] = TrapGate()


def _set_nmi_callback(caller: Caller, address: int) -> None:
    """The callback is the trap table's entry for vector 2, with events masked."""
    cs = FLAT_KERNEL_CS64 if caller.width.is_64 else FLAT_RING1_CS
    caller.vcpu.gates[Vector.NMI] = TrapGate(cs, address, masks_events=True)


NMI_OPS: Final = subops(
    HypercallNr.NMI_OP,
    {
        XennmiOp.REGISTER_CALLBACK: SubOp(XennmiCallback, register_nmi),
        XennmiOp.UNREGISTER_CALLBACK: SubOp(None, unregister_nmi),
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
