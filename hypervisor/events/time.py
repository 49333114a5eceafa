"""What a guest reads as time: vcpu_time_info and the wall clock in shared_info.

System time is the machine's virtual time. The TSC that a guest reads counts its nanoseconds, so the
scale is fixed: mul 2^31, shift 1 (struct vcpu_time_info in public/xen.h). A writer makes `version`
odd, writes, and makes it even again; a guest retries while it is odd or has changed.

The pair (TSC, system time) that a guest is given is a moment that has passed: Xen takes one each
second for the whole machine, and tells a vCPU of it when it next comes to run. A vCPU that runs
often is not written to each time, and two of them that read at the same moment compute the same.
"""

from __future__ import annotations

import struct
from typing import Final

from hypervisor.abi.layout import layout
from hypervisor.abi.width import Width
from hypervisor.abi.xen import (
    XEN_PVCLOCK_TSC_STABLE_BIT,
    ArchSharedInfo,
    SharedInfo,
    VcpuInfo,
)
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.machine.memory import MachineMemory
from hypervisor.x86.paging import PAGE_SHIFT

#: The offset of vcpu_time_info in vcpu_info, the same in all widths.
TIME_OFFSET: Final = layout(VcpuInfo, Width.X86_64).offset("time")
TSC_TO_SYSTEM_MUL: Final = 1 << 31
TSC_SHIFT: Final = 1
EPOCH_NS: Final = 1_000_000_000  # between two moments that guests are told (EPOCH in Xen's time.c)

_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_TIME: Final = struct.Struct("<IIQQIbBxx")
_U32: Final = struct.Struct("<I")
_WALLCLOCK: Final = struct.Struct("<III")
_WC_OFFSET: Final = {width: layout(SharedInfo, width).offset("wc_version") for width in Width}


def _offset_of_sec_hi(width: Width) -> int:
    """wc_sec_hi follows the rest for 64 bits; 32-bit guests found room for it in `arch`."""
    shared_info = layout(SharedInfo, width)
    if width.is_64:
        return shared_info.offset("wc_sec_hi")
    return shared_info.offset("arch") + layout(ArchSharedInfo, width).offset("wc_sec_hi")


_WC_SEC_HI_OFFSET: Final = {width: _offset_of_sec_hi(width) for width in Width}


def tsc_of(now_ns: int) -> int:
    """The time-stamp counter at a system time: 1 GHz, the same for every domain and CPU."""
    return now_ns & _M64


def next_version(version: int) -> int:
    """The even number behind an update, whatever the guest has made of the one before it."""
    return (version + 1 | 1) + 1 & _M32


def stamp_at(now_ns: int) -> int:
    """The system time of the moment that guests are told from `now_ns` on."""
    return now_ns - now_ns % EPOCH_NS


def update_time(memory: MachineMemory, vcpu: Vcpu, stamp_ns: int) -> bytes:
    """Tell `vcpu` the TSC that belonged to the system time `stamp_ns`; its vcpu_time_info."""
    at = vcpu.vcpu_info_maddr + TIME_OFFSET
    told = _TIME.pack(
        next_version(_U32.unpack_from(memory.view, at)[0]),
        0,
        tsc_of(stamp_ns),
        stamp_ns,
        TSC_TO_SYSTEM_MUL,
        TSC_SHIFT,
        XEN_PVCLOCK_TSC_STABLE_BIT,
    )
    memory.view[at : at + _TIME.size] = told
    vcpu.time_stamp_ns = stamp_ns
    return told


def update_wallclock(memory: MachineMemory, dom: Domain, wallclock_ns: int) -> None:
    """Tell `dom` the wall clock at system time 0, its own offset added, and nothing else.

    `wallclock_ns` is the machine's, since 1970 (update_domain_wallclock_time).
    """
    base = dom.shared_info_mfn << PAGE_SHIFT
    at = base + _WC_OFFSET[dom.width]
    seconds, nanoseconds = divmod(wallclock_ns, 1_000_000_000)
    seconds = seconds + dom.time_offset_s & _M64
    version = next_version(_U32.unpack_from(memory.view, at)[0])
    _WALLCLOCK.pack_into(memory.view, at, version, seconds & _M32, nanoseconds)
    _U32.pack_into(memory.view, base + _WC_SEC_HI_OFFSET[dom.width], seconds >> 32)
