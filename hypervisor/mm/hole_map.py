"""Where Xen's region lies in the address spaces of each width, and how it is divided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hypervisor.abi import arch_x86_32, arch_x86_64
from hypervisor.abi.arch_x86 import FIRST_RESERVED_GDT_PAGE
from hypervisor.abi.width import Width
from hypervisor.mm.frames import FrameType
from hypervisor.x86.paging import PAGE_SHIFT

GDT_GUEST_PAGES: Final = FIRST_RESERVED_GDT_PAGE
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
    Width.X86_32: HoleMap(
        FrameType.L2,
        first_slot=1008,
        end_slot=1024,
        m2p_vaddr=arch_x86_32.MACH2PHYS_VIRT_START_NONPAE,
        windows_vaddr=0xFD00_0000,
        vaddr=arch_x86_32.HYPERVISOR_VIRT_START_NONPAE,
    ),
    Width.X86_32P: HoleMap(
        FrameType.XEN_L2,
        first_slot=428,
        end_slot=512,
        m2p_vaddr=arch_x86_32.MACH2PHYS_VIRT_START_PAE,
        windows_vaddr=0xFD00_0000,
        vaddr=arch_x86_32.HYPERVISOR_VIRT_START_PAE,
    ),
    Width.X86_64: HoleMap(
        FrameType.L4,
        first_slot=256,
        end_slot=272,
        m2p_vaddr=arch_x86_64.MACH2PHYS_VIRT_START,
        windows_vaddr=0xFFFF_8200_0000_0000,
        vaddr=arch_x86_64.HYPERVISOR_VIRT_START,
    ),
}
