"""What a guest reads as time: vcpu_time_info and the wall clock in shared_info.

System time is the machine's virtual time. The TSC that a guest reads counts its nanoseconds, so the
scale is fixed: mul 2^31, shift 1 (struct vcpu_time_info in public/xen.h). A writer makes `version`
odd, writes, and makes it even again; a guest retries while it is odd or has changed.
"""

from __future__ import annotations

import struct
from typing import Final

from hypervisor.abi.layout import layout
from hypervisor.abi.width import Width
from hypervisor.abi.xen import XEN_PVCLOCK_TSC_STABLE_BIT, SharedInfo, VcpuInfo
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.machine.memory import MachineMemory
from hypervisor.x86.paging import PAGE_SHIFT

#: The offset of vcpu_time_info in vcpu_info, the same in all widths.
TIME_OFFSET: Final = layout(VcpuInfo, Width.X86_64).offset("time")
TSC_TO_SYSTEM_MUL: Final = 1 << 31
TSC_SHIFT: Final = 1

_TIME: Final = struct.Struct("<IIQQIbBxx")
_WALLCLOCK: Final = struct.Struct("<III")
_WC_OFFSET: Final = {width: layout(SharedInfo, width).offset("wc_version") for width in Width}


def tsc_of(now_ns: int) -> int:
    """The time-stamp counter at a system time: 1 GHz."""
    return now_ns & 0xFFFF_FFFF_FFFF_FFFF


def update_time(memory: MachineMemory, vcpu: Vcpu, now_ns: int) -> bytes:
    """Tell `vcpu` the system time that belongs to the present TSC; its vcpu_time_info."""
    vcpu.time_version = vcpu.time_version + 2 & 0xFFFF_FFFE
    _TIME.pack_into(
        memory.view,
        vcpu.vcpu_info_maddr + TIME_OFFSET,
        vcpu.time_version,
        0,
        tsc_of(now_ns),
        now_ns,
        TSC_TO_SYSTEM_MUL,
        TSC_SHIFT,
        XEN_PVCLOCK_TSC_STABLE_BIT,
    )
    at = vcpu.vcpu_info_maddr + TIME_OFFSET
    return memory.read(at, _TIME.size)


def update_wallclock(memory: MachineMemory, dom: Domain) -> None:
    """Tell `dom` the wall clock at system time 0 (wc_version, wc_sec, wc_nsec)."""
    at = (dom.shared_info_mfn << PAGE_SHIFT) + _WC_OFFSET[dom.width]
    version = _WALLCLOCK.unpack_from(memory.view, at)[0] + 2 & 0xFFFF_FFFE
    seconds, nanoseconds = divmod(dom.wallclock_offset_ns, 1_000_000_000)
    _WALLCLOCK.pack_into(memory.view, at, version, seconds & 0xFFFF_FFFF, nanoseconds)
