"""public/io/xs_wire.h: xenstore's messages, and the page they travel through."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hypervisor.abi.layout import U32, CharArray, abi_struct


class XsType(IntEnum):
    """XS_*: types of messages. Number 20, XS_RESTRICT, is no more."""

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


XENSTORE_RING_SIZE: Final = 1024  # bytes, each way
XENSTORE_PAYLOAD_MAX: Final = 4096  # whoever sends more is not listened to any longer
XENSTORE_ABS_PATH_MAX: Final = 3072
XENSTORE_REL_PATH_MAX: Final = 2048

XENSTORE_SERVER_FEATURE_RECONNECTION: Final = 1
XENSTORE_SERVER_FEATURE_ERROR: Final = 2  # the ring page has a field `error`


class XenstoreError(IntEnum):
    """XENSTORE_ERROR_*: why the server has stopped listening."""

    NONE = 0
    COMM = 1  # the event channel does not work
    RINGIDX = 2  # impossible ring indices
    PROTO = 3  # a payload that is too long


@abi_struct(size=16)
@dataclass(slots=True)
class XsdSockmsg:
    """struct xsd_sockmsg: the head of every message."""

    type: U32  # XsType
    req_id: U32  # comes back in the reply
    tx_id: U32  # transaction, 0 for none
    len: U32  # bytes that follow


@abi_struct(size=2076)
@dataclass(slots=True)
class XenstoreDomainInterface:
    """struct xenstore_domain_interface. Indices run freely."""

    req: CharArray(XENSTORE_RING_SIZE)  # type: ignore[valid-type]
    rsp: CharArray(XENSTORE_RING_SIZE)  # type: ignore[valid-type]
    req_cons: U32  # of the server
    req_prod: U32  # of the guest
    rsp_cons: U32  # of the guest
    rsp_prod: U32  # of the server
    server_features: U32  # XENSTORE_SERVER_FEATURE_*
    connection: U32  # XENSTORE_CONNECTED; 1 asks for a new start, which not every server offers
    error: U32  # XenstoreError
