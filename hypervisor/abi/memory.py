"""public/memory.h: a domain's reservation of frames."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hypervisor.abi.layout import U16, U32, GuestPtr, XenUlong, abi_struct


class XenmemOp(IntEnum):
    """XENMEM_*."""

    INCREASE_RESERVATION = 0
    DECREASE_RESERVATION = 1
    MAXIMUM_RAM_PAGE = 2
    CURRENT_RESERVATION = 3
    MAXIMUM_RESERVATION = 4
    MACHPHYS_MFN_LIST = 5
    POPULATE_PHYSMAP = 6
    ADD_TO_PHYSMAP = 7
    MEMORY_MAP = 9
    MACHINE_MEMORY_MAP = 10
    EXCHANGE = 11
    MACHPHYS_MAPPING = 12
    SET_MEMORY_MAP = 13
    MAXIMUM_GPFN = 14
    REMOVE_FROM_PHYSMAP = 15
    SET_POD_TARGET = 16
    GET_POD_TARGET = 17
    GET_SHARING_FREED_PAGES = 18
    GET_SHARING_SHARED_PAGES = 19
    PAGING_OP = 20
    ACCESS_OP = 21
    SHARING_OP = 22
    ADD_TO_PHYSMAP_BATCH = 23
    CLAIM_PAGES = 24
    MACHPHYS_COMPAT_MFN_LIST = 25
    GET_VNUMAINFO = 26
    RESERVED_DEVICE_MEMORY_MAP = 27
    ACQUIRE_RESOURCE = 28


@abi_struct(size32=20, size64=32)
@dataclass(slots=True)
class XenMemoryReservation:
    """struct xen_memory_reservation."""

    extent_start: GuestPtr  # xen_pfn_t[nr_extents]
    nr_extents: XenUlong
    extent_order: U32
    mem_flags: U32
    domid: U16


# `in` is a keyword here
@abi_struct(size32=44, size64=72)
@dataclass(slots=True)
class XenMemoryExchange:
    """struct xen_memory_exchange."""

    in_: XenMemoryReservation
    out: XenMemoryReservation
    nr_exchanged: XenUlong = 0  # in and out: how many input extents are done


@abi_struct(size32=12, size64=24)
@dataclass(slots=True)
class XenMachphysMfnList:
    """struct xen_machphys_mfn_list."""

    max_extents: U32
    extent_start: GuestPtr  # xen_pfn_t[max_extents]
    nr_extents: U32 = 0  # out


@abi_struct(size32=12, size64=24)
@dataclass(slots=True)
class XenMachphysMapping:
    """struct xen_machphys_mapping."""

    v_start: XenUlong = 0
    v_end: XenUlong = 0
    max_mfn: XenUlong = 0


@abi_struct(size32=8, size64=16)
@dataclass(slots=True)
class XenMemoryMap:
    """struct xen_memory_map."""

    nr_entries: U32  # in: room; out: used
    buffer: GuestPtr
