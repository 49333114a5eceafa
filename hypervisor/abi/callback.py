"""public/callback.h: where Xen enters a guest."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hypervisor.abi.layout import U16, U64, abi_struct


class CallbackType(IntEnum):
    """CALLBACKTYPE_*."""

    EVENT = 0
    FAILSAFE = 1
    SYSCALL = 2
    SYSENTER_DEPRECATED = 3
    NMI = 4
    SYSENTER = 5
    SYSCALL32 = 7


CALLBACKF_MASK_EVENTS: Final = 1 << 0


class CallbackOp(IntEnum):
    """CALLBACKOP_*."""

    REGISTER = 0
    UNREGISTER = 1


@abi_struct(size32=12, size64=16)
@dataclass(slots=True)
class CallbackRegister:
    """struct callback_register. The address of a 32-bit callback is (cs, eip)."""

    type: U16
    flags: U16  # CALLBACKF_*
    address: U64


@abi_struct(size=4)
@dataclass(slots=True)
class CallbackUnregister:
    """struct callback_unregister."""

    type: U16
    unused: U16
