"""public/arch-x86/xen-x86_32.h: what only 32-bit guests see. `PAE` is x86_32p, `NONPAE` x86_32."""

from __future__ import annotations

from typing import Final

# --- flat segments in Xen's part of every GDT ----------------------------------------------------
FLAT_RING1_CS: Final = 0xE019
FLAT_RING1_DS: Final = 0xE021
FLAT_RING1_SS: Final = 0xE021
FLAT_RING3_CS: Final = 0xE02B
FLAT_RING3_DS: Final = 0xE033
FLAT_RING3_SS: Final = 0xE033

# --- Xen's region of the address space ---------------------------------------------------------
HYPERVISOR_VIRT_START_PAE: Final = 0xF580_0000
MACH2PHYS_VIRT_START_PAE: Final = 0xF580_0000
MACH2PHYS_VIRT_END_PAE: Final = 0xF680_0000
HYPERVISOR_VIRT_START_NONPAE: Final = 0xFC00_0000
MACH2PHYS_VIRT_START_NONPAE: Final = 0xFC00_0000
MACH2PHYS_VIRT_END_NONPAE: Final = 0xFC40_0000
