"""public/physdev.h: virtual hardware."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hypervisor.abi.layout import U32, GuestPtr, abi_struct


class PhysdevOp(IntEnum):
    """PHYSDEVOP_*."""

    IRQ_UNMASK_NOTIFY = 4
    IRQ_STATUS_QUERY = 5
    SET_IOPL = 6
    SET_IOBITMAP = 7
    APIC_READ = 8
    APIC_WRITE = 9
    ALLOC_IRQ_VECTOR = 10
    FREE_IRQ_VECTOR = 11
    EOI = 12
    MAP_PIRQ = 13
    UNMAP_PIRQ = 14
    MANAGE_PCI_ADD = 15
    MANAGE_PCI_REMOVE = 16
    PIRQ_EOI_GMFN_V1 = 17
    RESTORE_MSI = 19
    MANAGE_PCI_ADD_EXT = 20
    SETUP_GSI = 21
    GET_FREE_PIRQ = 23
    PCI_MMCFG_RESERVED = 24
    PCI_DEVICE_ADD = 25
    PCI_DEVICE_REMOVE = 26
    RESTORE_MSI_EXT = 27
    PIRQ_EOI_GMFN_V2 = 28
    DBGP_OP = 29
    PREPARE_MSIX = 30
    RELEASE_MSIX = 31


@abi_struct(size=4)
@dataclass(slots=True)
class PhysdevSetIopl:
    """struct physdev_set_iopl."""

    iopl: U32


@abi_struct(size32=8, size64=16)
@dataclass(slots=True)
class PhysdevSetIobitmap:
    """struct physdev_set_iobitmap."""

    bitmap: GuestPtr  # uint8 *
    nr_ports: U32
