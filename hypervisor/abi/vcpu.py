"""public/vcpu.h: virtual CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hypervisor.abi.layout import I32, U32, U64, ArrayOf, abi_struct


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


class Runstate(IntEnum):
    """RUNSTATE_*."""

    RUNNING = 0  # on a physical CPU
    RUNNABLE = 1  # waiting for one
    BLOCKED = 2  # waiting for an event
    OFFLINE = 3  # neither: paused, down, or its domain is over


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


@abi_struct(size32=44, size64=48)
@dataclass(slots=True)
class VcpuRunstateInfo:
    """struct vcpu_runstate_info."""

    state: I32  # RUNSTATE_*
    state_entry_time: U64  # system time, ns
    time: ArrayOf(U64, 4)  # type: ignore[valid-type]  # ns in each state, this one's up to its beginning


@abi_struct(size=8)
@dataclass(slots=True)
class VcpuRegisterRunstateMemoryArea:
    """struct vcpu_register_runstate_memory_area."""

    addr: U64  # of a vcpu_runstate_info; a 32-bit guest's pointer is in the low half


@abi_struct(size=8)
@dataclass(slots=True)
class VcpuRegisterTimeMemoryArea:
    """struct vcpu_register_time_memory_area."""

    addr: U64  # of a vcpu_time_info
