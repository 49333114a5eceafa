"""public/grant_table.h: letting another domain use a frame."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hypervisor.abi.layout import I16, U16, U32, GuestPtr, abi_struct


class GnttabOp(IntEnum):
    """GNTTABOP_*."""

    MAP_GRANT_REF = 0
    UNMAP_GRANT_REF = 1
    SETUP_TABLE = 2
    DUMP_TABLE = 3
    TRANSFER = 4
    COPY = 5
    QUERY_SIZE = 6
    UNMAP_AND_REPLACE = 7
    SET_VERSION = 8
    GET_STATUS_FRAMES = 9
    GET_VERSION = 10
    SWAP_GRANT_REF = 11
    CACHE_FLUSH = 12


class GntStatus(IntEnum):
    """GNTST_*."""

    OKAY = 0
    GENERAL_ERROR = -1
    BAD_DOMAIN = -2
    BAD_GNTREF = -3
    BAD_HANDLE = -4
    BAD_VIRT_ADDR = -5
    BAD_DEV_ADDR = -6
    NO_DEVICE_SPACE = -7
    PERMISSION_DENIED = -8
    BAD_PAGE = -9
    BAD_COPY_ARG = -10
    ADDRESS_TOO_BIG = -11
    EAGAIN = -12
    NO_SPACE = -13


@abi_struct(size32=16, size64=24)
@dataclass(slots=True)
class GnttabSetupTable:
    """struct gnttab_setup_table."""

    dom: U16
    nr_frames: U32
    status: I16  # out: GntStatus
    frame_list: GuestPtr  # xen_pfn_t[nr_frames]


@abi_struct(size=16)
@dataclass(slots=True)
class GnttabQuerySize:
    """struct gnttab_query_size."""

    dom: U16
    nr_frames: U32 = 0  # out
    max_nr_frames: U32 = 0  # out
    status: I16 = 0  # out: GntStatus


@abi_struct(size=4)
@dataclass(slots=True)
class GnttabSetVersion:
    """struct gnttab_set_version."""

    version: U32


@abi_struct(size=8)
@dataclass(slots=True)
class GnttabGetVersion:
    """struct gnttab_get_version."""

    dom: U16
    pad: U16
    version: U32 = 0  # out
