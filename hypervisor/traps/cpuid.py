"""What cpuid tells a PV guest: this engine's real abilities, and Xen's own leaves.

The hypervisor leaves (0x40000000..2) are public/arch-x86/cpuid.h's. Hidden on purpose are features
that a PV guest cannot have (PSE, PGE, MTRR, MCE, PCID, SMEP, SMAP, UMIP, FSGSBASE) and those that
the engine has no state for (XSAVE, AVX).
"""

from __future__ import annotations

import struct
from typing import Final

from hypervisor.abi.arch_x86 import (
    XEN_CPUID_FIRST_LEAF,
    XEN_CPUID_SIGNATURE_EBX,
    XEN_CPUID_SIGNATURE_ECX,
    XEN_CPUID_SIGNATURE_EDX,
)

_XEN_SIGNATURE: Final = (
    XEN_CPUID_SIGNATURE_EBX,
    XEN_CPUID_SIGNATURE_ECX,
    XEN_CPUID_SIGNATURE_EDX,
)
XEN_VERSION: Final = 4 << 16 | 17

_VENDOR: Final = struct.unpack("<3I", b"GenuineIntel")
_BRAND: Final = struct.unpack("<12I", b"ring1 virtual CPU on Unicorn".ljust(48, b"\0"))

# leaf 1 (SDM 2A CPUID): fpu de tsc msr pae cx8 sep pat cmov clflush mmx fxsr sse sse2
_L1_EDX: Final = sum(1 << bit for bit in (0, 2, 4, 5, 6, 8, 11, 15, 16, 19, 23, 24, 25, 26))
# sse3 pclmul ssse3 cx16 sse4.1 sse4.2 movbe popcnt aes hypervisor
_L1_ECX: Final = sum(1 << bit for bit in (0, 1, 9, 13, 19, 20, 22, 23, 25, 31))
# leaf 7: bmi1 bmi2 erms adx
_L7_EBX: Final = sum(1 << bit for bit in (3, 8, 9, 19))
# leaf 80000001: syscall nx rdtscp lm, and the copies of leaf 1 that AMD defines
_E1_EDX: Final = sum(1 << bit for bit in (11, 20, 27, 29))
# lahf abm
_E1_ECX: Final = sum(1 << bit for bit in (0, 5))
_SIGNATURE: Final = 0x000106A5  # family 6, model 26: what the offered features amount to

Leaf = tuple[int, int, int, int]


def cpuid(leaf: int, subleaf: int, *, is_64: bool) -> Leaf:
    """EAX, EBX, ECX, EDX of a leaf."""
    if XEN_CPUID_FIRST_LEAF <= leaf < XEN_CPUID_FIRST_LEAF + 0x100:
        return _xen_leaf(leaf - XEN_CPUID_FIRST_LEAF)
    if leaf >= 0x8000_0000:
        return _extended_leaf(leaf, is_64)
    match leaf:
        case 0:
            return 0xD, _VENDOR[0], _VENDOR[2], _VENDOR[1]
        case 1:
            return _SIGNATURE, 0x0800, _L1_ECX, _L1_EDX
        case 7 if subleaf == 0:
            return 0, _L7_EBX, 0, 0
        case _:
            return 0, 0, 0, 0


def _xen_leaf(index: int) -> Leaf:
    match index:
        case 0:
            return XEN_CPUID_FIRST_LEAF + 2, *_XEN_SIGNATURE
        case 1:
            return XEN_VERSION, 0, 0, 0
        case 2:
            return 1, 0x4000_0000, 0, 0  # one page of hypercalls; no MSR writes it for PV
        case _:
            return 0, 0, 0, 0


def _extended_leaf(leaf: int, is_64: bool) -> Leaf:
    match leaf:
        case 0x8000_0000:
            return 0x8000_0008, 0, 0, 0
        case 0x8000_0001:
            edx = _E1_EDX if is_64 else _E1_EDX & ~(1 << 11 | 1 << 29)
            return 0, 0, _E1_ECX, edx
        case 0x8000_0002 | 0x8000_0003 | 0x8000_0004:
            start = (leaf - 0x8000_0002) * 4
            a, b, c, d = _BRAND[start : start + 4]
            return a, b, c, d
        case 0x8000_0007:
            return 0, 0, 0, 1 << 8  # invariant TSC
        case 0x8000_0008:
            return 0x3028, 0, 0, 0  # 40 physical, 48 linear address bits
        case _:
            return 0, 0, 0, 0
