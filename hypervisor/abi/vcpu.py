"""public/vcpu.h: virtual CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hypervisor.abi.layout import U32, U64, abi_struct


class VcpuOp(IntEnum):
    """VCPUOP_*."""

    INITIALISE = 0
    UP = 1
    DOWN = 2
    IS_UP = 3
    GET_RUNSTATE_INFO = 4
    REGISTER_RUNSTATE_MEMORY_AREA = 5
    SET_PERIODIC_TIMER = 6
    STOP_PERIODIC_TIMER = 7
    SET_SINGLESHOT_TIMER = 8
    STOP_SINGLESHOT_TIMER = 9
    REGISTER_VCPU_INFO = 10
    SEND_NMI = 11
    GET_PHYSID = 12
    REGISTER_VCPU_TIME_MEMORY_AREA = 13


VCPU_SSHOTTMR_FUTURE: Final = 1 << 0  # fail with ETIME if the time has passed


@abi_struct(size=8)
@dataclass(slots=True)
class VcpuSetPeriodicTimer:
    """struct vcpu_set_periodic_timer."""

    period_ns: U64


@abi_struct(size32=12, size64=16)
@dataclass(slots=True)
class VcpuSetSingleshotTimer:
    """struct vcpu_set_singleshot_timer."""

    timeout_abs_ns: U64
    flags: U32  # VCPU_SSHOTTMR_*


@abi_struct(size=16)
@dataclass(slots=True)
class VcpuRegisterVcpuInfo:
    """struct vcpu_register_vcpu_info."""

    mfn: U64
    offset: U32  # within the frame, bytes
    rsvd: U32
