"""public/nmi.h: non-maskable interrupts."""

from __future__ import annotations

from enum import IntEnum


class XennmiOp(IntEnum):
    """XENNMI_*: the first argument of nmi_op."""

    REGISTER_CALLBACK = 0
    UNREGISTER_CALLBACK = 1
