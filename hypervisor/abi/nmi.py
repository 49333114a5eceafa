"""public/nmi.h: non-maskable interrupts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hypervisor.abi.layout import XenUlong, abi_struct


class XennmiOp(IntEnum):
    """XENNMI_*: the first argument of nmi_op."""

    REGISTER_CALLBACK = 0
    UNREGISTER_CALLBACK = 1


@abi_struct(size32=8, size64=16)
@dataclass(slots=True)
class XennmiCallback:
    """struct xennmi_callback."""

    handler_address: XenUlong
    pad: XenUlong
