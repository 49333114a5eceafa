"""Where Xen's region lies in the address spaces of each width, and how it is divided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hypervisor.abi.width import Width
from hypervisor.mm.frames import FrameType
from hypervisor.x86.paging import PAGE_SHIFT

GDT_GUEST_PAGES: Final = 14  # FIRST_RESERVED_GDT_PAGE (public/arch-x86/xen.h)
WINDOW_SHIFT: Final = 17  # GDT_LDT_VCPU_VA_SHIFT + PAGE_SHIFT
LDT_OFFSET: Final = 16 << PAGE_SHIFT


@dataclass(frozen=True, slots=True)
class HoleMap:
    """Where Xen's region lies in one width."""

    table: FrameType  # whose slots are Xen's
    first_slot: int
    end_slot: int
    m2p_vaddr: int
    windows_vaddr: int
    vaddr: int  # first address of the region


HOLE: Final = {
    # Xen 2's asm-x86/config.h put the table at the region's start (RDWR_MPT, RO_MPT).
    Width.X86_32: HoleMap(FrameType.L2, 1008, 1024, 0xFC00_0000, 0xFD00_0000, 0xFC00_0000),
    Width.X86_32P: HoleMap(FrameType.XEN_L2, 428, 512, 0xF580_0000, 0xFD00_0000, 0xF580_0000),
    Width.X86_64: HoleMap(
        FrameType.L4,
        256,
        272,
        0xFFFF_8000_0000_0000,
        0xFFFF_8200_0000_0000,
        0xFFFF_8000_0000_0000,
    ),
}
