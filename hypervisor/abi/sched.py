"""public/sched.h: giving the CPU away, and ending."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hypervisor.abi.layout import U16, U32, U64, GuestPtr, abi_struct


class SchedOp(IntEnum):
    """SCHEDOP_*."""

    YIELD = 0
    BLOCK = 1
    SHUTDOWN = 2
    POLL = 3
    REMOTE_SHUTDOWN = 4
    SHUTDOWN_CODE = 5
    WATCHDOG = 6
    PIN_OVERRIDE = 7


class ShutdownReason(IntEnum):
    """SHUTDOWN_*."""

    POWEROFF = 0
    REBOOT = 1
    SUSPEND = 2
    CRASH = 3
    WATCHDOG = 4
    SOFT_RESET = 5


@abi_struct(size=4)
@dataclass(slots=True)
class SchedShutdown:
    """struct sched_shutdown."""

    reason: U32


@abi_struct(size32=16, size64=24)
@dataclass(slots=True)
class SchedPoll:
    """struct sched_poll."""

    ports: GuestPtr  # evtchn_port_t[nr_ports]
    nr_ports: U32
    timeout: U64  # absolute system time, ns; 0: none


@abi_struct(size=8)
@dataclass(slots=True)
class SchedWatchdog:
    """struct sched_watchdog."""

    id: U32  # 0: a new one, whose number is the result
    timeout: U32  # seconds from now; 0 gives it back


@abi_struct(size=8)
@dataclass(slots=True)
class SchedRemoteShutdown:
    """struct sched_remote_shutdown."""

    domain_id: U16
    reason: U32
