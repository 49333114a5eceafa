"""Descriptor tables: pages of segment descriptors that no guest can write once they are in use.

A frame of a GDT or LDT has type SEGDESC: every descriptor in it was checked, and fixed up, when it
became one, and changes only through update_descriptor. What is checked is that nothing reaches ring
0 (check_descriptor in Xen's arch/x86/pv/descriptor-tables.c): DPL 0 becomes the guest kernel's
ring, a system descriptor other than a call gate is refused, and a call gate's target must not be
privileged. The accessed bit is set here, so that the CPU need not write into the read-only window.
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.arch_x86 import FIRST_RESERVED_GDT_ENTRY
from hypervisor.abi.arch_x86_32 import FLAT_RING1_CS
from hypervisor.abi.arch_x86_64 import FLAT_RING3_CS64
from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.hole_map import HOLE
from hypervisor.x86.descriptor import (
    DESC_ACCESSED,
    DESC_DPL,
    DESC_DPL_SHIFT,
    DESC_L,
    DESC_P,
    DESC_S,
    SEL_TI_LDT,
    desc_base,
    desc_dpl,
    desc_limit,
)
from hypervisor.x86.paging import PAGE_SHIFT

ENTRIES_PER_PAGE: Final = 512
MAX_GDT_ENTRIES: Final = FIRST_RESERVED_GDT_ENTRY
MAX_LDT_ENTRIES: Final = 8192

_TYPE: Final = 0xF << 40
_CALL_GATE: Final = 0xC << 40


def kernel_ring(width: Width) -> int:
    """The real ring in which a guest's kernel runs: 1, or 3 for 64 bits."""
    return 3 if width.is_64 else 1


def checked_descriptor(width: Width, desc: int) -> int:
    """`desc` as it may stand in a table. Raises XenError(EINVAL) if nothing like it may."""
    if not desc & DESC_P:
        return desc  # using it faults, so it is safe
    dpl = max(desc_dpl(desc), kernel_ring(width))
    fixed = desc & ~DESC_DPL | dpl << DESC_DPL_SHIFT
    if desc & DESC_S:
        return _checked_segment(width, fixed)
    if not desc & _TYPE:
        return fixed  # type 0, as the second half of a 64-bit call gate
    if desc & _TYPE != _CALL_GATE:
        raise XenError(Errno.EINVAL, f"descriptor {desc:#018x}: a system segment")
    return _checked_gate(width, desc, dpl)


def _checked_segment(width: Width, desc: int) -> int:
    if not width.is_64:
        if desc & DESC_L:
            raise XenError(Errno.EINVAL, f"descriptor {desc:#018x}: 64-bit code in a 32-bit guest")
        if desc_base(desc) == 0 and desc_limit(desc) >= HOLE[width].vaddr:
            # Older kernels trim their segments to just below a smaller hypervisor's region
            desc |= 0x000F_0000_0000_FFFF
    return desc | DESC_ACCESSED


def _checked_gate(width: Width, desc: int, dpl: int) -> int:
    """A call gate, its DPL 0 so that use traps and Xen can do it; the real DPL is in the RPL."""
    selector = desc >> 16 & 0xFFFF
    kernel_cs = FLAT_RING3_CS64 if width.is_64 else FLAT_RING1_CS
    if selector >> 3 >= MAX_GDT_ENTRIES and not selector & SEL_TI_LDT and selector != kernel_cs:
        raise XenError(Errno.EINVAL, f"call gate {desc:#018x}: selector {selector:#x} is Xen's")
    reserved = 0xE0 << 32 if not width.is_64 else 0xFF << 32
    if desc & reserved:
        raise XenError(Errno.EINVAL, f"call gate {desc:#018x}: reserved bits {desc & reserved:#x}")
    selector = selector & ~3 | dpl
    return desc & ~DESC_DPL & ~(0xFFFF << 16) | selector << 16


def check_page(memory: MachineMemory, width: Width, mfn: int) -> None:
    """Check and fix up all descriptors of a frame. Raises XenError; nothing has changed then."""
    words = memory.u64
    first = mfn << PAGE_SHIFT >> 3
    raw = list(words[first : first + ENTRIES_PER_PAGE])
    checked = [checked_descriptor(width, desc) if desc else 0 for desc in raw]
    for slot, (old, new) in enumerate(zip(raw, checked, strict=True)):
        if old != new:
            words[first + slot] = new
