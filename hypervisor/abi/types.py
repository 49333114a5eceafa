"""Kinds of numbers not to be confused, and the domain numbers with a meaning (public/xen.h)."""

from __future__ import annotations

from typing import Final, NewType

Domid = NewType("Domid", int)
VcpuId = NewType("VcpuId", int)
Mfn = NewType("Mfn", int)  # machine frame number
Pfn = NewType("Pfn", int)  # pseudo-physical frame number, the guest's own
Maddr = NewType("Maddr", int)  # machine address
Vaddr = NewType("Vaddr", int)  # guest-linear address
Port = NewType("Port", int)  # event channel
GrantRef = NewType("GrantRef", int)

DOMID_FIRST_RESERVED: Final = 0x7FF0
DOMID_SELF: Final = 0x7FF0
DOMID_IO: Final = 0x7FF1
DOMID_XEN: Final = 0x7FF2
DOMID_COW: Final = 0x7FF3
DOMID_INVALID: Final = 0x7FF4
DOMID_IDLE: Final = 0x7FFF
