"""Messages: struct xsd_sockmsg and its payload (public/io/xs_wire.h)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MAX_PAYLOAD: Final = 4096  # XENSTORE_PAYLOAD_MAX
HEADER: Final = struct.Struct("<4I")


class XsType(IntEnum):
    """XS_*: types of messages."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22


@dataclass(frozen=True, slots=True)
class Message:
    """One request or reply."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes

    def encode(self) -> bytes:
        """Header and payload."""
        return HEADER.pack(self.type, self.req_id, self.tx_id, len(self.payload)) + self.payload


def take_message(pending: bytearray) -> Message | None:
    """The first whole message of a stream, removed from it; None while it is incomplete.

    Raises ValueError for a length that no message may have: what follows cannot be understood.
    """
    if len(pending) < HEADER.size:
        return None
    kind, req_id, tx_id, length = HEADER.unpack_from(pending)
    if length > MAX_PAYLOAD:
        raise ValueError(f"a payload of {length} bytes; at most {MAX_PAYLOAD}")
    end = HEADER.size + length
    if len(pending) < end:
        return None
    payload = bytes(pending[HEADER.size : end])
    del pending[:end]
    return Message(kind, req_id, tx_id, payload)
