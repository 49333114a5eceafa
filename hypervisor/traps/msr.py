"""The MSRs that a PV kernel may read and write (guest_rdmsr, read_msr in Xen's arch/x86/pv)."""

from __future__ import annotations

from typing import Final

from hypervisor.traps.current import Current
from hypervisor.x86 import flags
from hypervisor.x86.flags import FS, GS, is_canonical

#: Reads that have the same answer always.
_CONSTANT: Final = {
    flags.MSR_APIC_BASE: 0xFEE00900,
    flags.MSR_MISC_ENABLE: 0x1,
    flags.MSR_PLATFORM_ID: 0,
    flags.MSR_PLATFORM_INFO: 0,  # no CPUID faulting, so none can be enabled:
    flags.MSR_MISC_FEATURES_ENABLES: 0,
    flags.MSR_UCODE_REV: 0,
    flags.MSR_PAT: 0x0501_0007_0406,
}
_READ_ONLY: Final = frozenset({flags.MSR_APIC_BASE, flags.MSR_PLATFORM_INFO})
#: Of EFER, what 32-bit guests are not shown (guest_efer).
_LONG_MODE: Final = flags.EFER_SCE | flags.EFER_LME | flags.EFER_LMA


def read(current: Current, number: int, now_ns: int) -> int | None:
    """The value of an MSR, None where reading it is a #GP."""
    state = current.state
    match number:
        case flags.MSR_TSC:
            return now_ns
        case flags.MSR_EFER if current.vcpu.width.is_64:
            return state.efer
        case flags.MSR_EFER:
            return state.efer & ~_LONG_MODE
        case flags.MSR_FS_BASE if current.vcpu.width.is_64:
            return state.segment(FS).base
        case flags.MSR_GS_BASE if current.vcpu.width.is_64:
            return state.segment(GS).base
        case flags.MSR_KERNEL_GS_BASE if current.vcpu.width.is_64:
            return current.vcpu.gs_base_user
        case _:
            return _CONSTANT.get(number)


def write(current: Current, number: int, value: int) -> bool:
    """Set an MSR; False where writing it is a #GP."""
    if number in (flags.MSR_FS_BASE, flags.MSR_GS_BASE, flags.MSR_KERNEL_GS_BASE):
        if not current.vcpu.width.is_64 or not is_canonical(value):
            return False
        set_base(current, number, value)
        return True
    # Microcode and the like: a write of what is there already changes nothing
    return number in _CONSTANT and number not in _READ_ONLY and value == _CONSTANT[number]


def set_base(current: Current, number: int, value: int) -> None:
    """FS base, GS base or the GS base that is not in use now."""
    state = current.state
    match number:
        case flags.MSR_FS_BASE:
            segment = state.segment(FS)
            state.set_segment(FS, segment.selector, value, segment.limit, segment.flags)
        case flags.MSR_GS_BASE:
            segment = state.segment(GS)
            state.set_segment(GS, segment.selector, value, segment.limit, segment.flags)
        case _:
            current.vcpu.gs_base_user = value
