"""physdev_op and vm_assist: what a PV guest asks of its virtual hardware."""

from __future__ import annotations

from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.physdev import PhysdevOp, PhysdevSetIobitmap, PhysdevSetIopl
from hypervisor.abi.xen import HypercallNr, VmAssistCmd, VmAssistType
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Absent, Row, SubOp, call_subop, hypercall, subops

_M32: Final = 0xFFFF_FFFF
_NR_PORTS: Final = 65536
_EXTENDED_CR3: Final = 1 << VmAssistType.PAE_EXTENDED_CR3
_ASSISTS_32: Final = frozenset(VmAssistType) - {VmAssistType.M2P_STRICT}
_ASSISTS_64: Final = frozenset(VmAssistType)


@hypercall(HypercallNr.VM_ASSIST, args=2)
def vm_assist(caller: Caller, command: int, kind: int) -> int:
    """Switch one of Xen's conveniences on or off. Both arguments are unsigned ints to Xen."""
    command &= _M32
    kind &= _M32
    known = _ASSISTS_64 if caller.width.is_64 else _ASSISTS_32
    if kind not in known:
        raise XenError(Errno.EINVAL, f"vm_assist type {kind} does not exist here")
    match command:
        case VmAssistCmd.ENABLE:
            caller.dom.vm_assist |= 1 << kind
        case VmAssistCmd.DISABLE:
            caller.dom.vm_assist &= ~(1 << kind)
        case _:
            raise XenError(Errno.ENOSYS, f"vm_assist command {command} is unknown")
    caller.current.assist_changed()
    caller.dom.page_tables.extended_cr3 = bool(caller.dom.vm_assist & _EXTENDED_CR3)
    return 0


def set_iopl(caller: Caller, arg: PhysdevSetIopl) -> None:
    """The virtual IOPL of the calling vCPU."""
    if arg.iopl > 3:
        raise XenError(Errno.EINVAL, f"IOPL {arg.iopl}")
    caller.vcpu.iopl = arg.iopl


def set_iobitmap(caller: Caller, arg: PhysdevSetIobitmap) -> None:
    """Which ports the guest may use below its IOPL: a bit for each, clear where it may."""
    if arg.nr_ports > _NR_PORTS or not caller.mem.is_guest_range(arg.bitmap, 1):
        raise XenError(Errno.EINVAL, f"a bitmap for {arg.nr_ports} ports at {arg.bitmap:#x}")
    caller.vcpu.iobitmap_vaddr, caller.vcpu.iobitmap_ports = arg.bitmap, arg.nr_ports


_NO_HARDWARE: Final = Absent(Errno.EPERM, "no domain here has physical devices")

PHYSDEV_OPS: Final = subops(
    HypercallNr.PHYSDEV_OP,
    {
        operation: _NO_HARDWARE
        for operation in PhysdevOp
        if operation not in (PhysdevOp.SET_IOPL, PhysdevOp.SET_IOBITMAP)
    }
    | {
        PhysdevOp.SET_IOPL: SubOp(PhysdevSetIopl, set_iopl),
        PhysdevOp.SET_IOBITMAP: SubOp(PhysdevSetIobitmap, set_iobitmap),
    },
)


@hypercall(HypercallNr.PHYSDEV_OP, args=2, operations=PHYSDEV_OPS)
def physdev_op(caller: Caller, operation: int, vaddr: int) -> int:
    """Do one operation on the caller's virtual hardware."""
    return call_subop(caller, PHYSDEV_OPS, operation, vaddr)


__all__ = ["PHYSDEV_OPS", "Row", "physdev_op", "vm_assist"]
