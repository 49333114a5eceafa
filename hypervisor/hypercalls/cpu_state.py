"""The CPU state of a vCPU that has hypercalls of its own: segment bases, debug registers, CR0.TS.

A PV kernel cannot write these itself (Xen's arch/x86/pv/misc-hypercalls.c).
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.arch_x86_64 import Segbase
from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.xen import HypercallNr
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import hypercall
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

_M32: Final = 0xFFFF_FFFF  # ints to Xen: of a 64-bit register the low half counts


@hypercall(HypercallNr.SET_SEGMENT_BASE, args=2)
def set_segment_base(caller: Caller, which: int, base: int) -> int:
    """FS and GS bases of 64-bit guests."""
    which &= _M32
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
    set_task_switched(caller.current, bool(set_ & _M32))
    return 0


@hypercall(HypercallNr.SET_DEBUGREG, args=2)
def set_debugreg_(caller: Caller, number: int, value: int) -> int:
    """Write a debug register."""
    number &= _M32
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
    number &= _M32
    if number > 7:
        return -Errno.ENODEV
    return get_debugreg(caller.current, number)
