"""Loading a guest's segment registers from its descriptor tables, checked as the CPU checks.

Used where the VMM itself enters guest code (bounce, iret, start): the guest's own `mov ds` and far
jumps are done by the engine. Order of checks and error codes: SDM 3A 5.6-5.8, SDM 2 "IRET".
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.arch_x86 import FIRST_RESERVED_GDT_BYTE
from hypervisor.abi.arch_x86_32 import (
    FLAT_RING1_CS,
    FLAT_RING1_DS,
    FLAT_RING3_CS,
    FLAT_RING3_DS,
)
from hypervisor.abi.arch_x86_64 import FLAT_RING3_CS32, FLAT_RING3_CS64, FLAT_RING3_DS32
from hypervisor.traps.current import Current
from hypervisor.x86.descriptor import (
    DESC_CODE,
    DESC_CONFORMING,
    DESC_P,
    DESC_S,
    SEL_RPL,
    SEL_TI_LDT,
    SegmentCache,
    desc_dpl,
    is_readable,
    is_writable_data,
    unpack,
)
from hypervisor.x86.flags import CS, DS, ES, FS, GS, SS, Vector
from hypervisor.x86.paging import PAGE_SHIFT

#: In the order of the failsafe callback's frame.
DATA_SEGMENTS: Final = (DS, ES, FS, GS)
NULL_SEGMENT: Final = SegmentCache(0, 0, 0)

#: Xen's page of a 32-bit guest's GDT, from selector 0xe000 (arch/x86/boot/x86_64.S, compat GDT).
XEN_GDT_32: Final = {
    FLAT_RING1_CS & ~3: 0x00CFBB00_0000FFFF,
    FLAT_RING1_DS & ~3: 0x00CFB300_0000FFFF,
    FLAT_RING3_CS & ~3: 0x00CFFB00_0000FFFF,
    FLAT_RING3_DS & ~3: 0x00CFF300_0000FFFF,
}
#: and of a 64-bit guest's, with Xen's own segments (__HYPERVISOR_CS64, DS32 and CS32 there).
XEN_GDT_64: Final = {
    FIRST_RESERVED_GDT_BYTE + 0x08: 0x00AF9B00_0000FFFF,
    FIRST_RESERVED_GDT_BYTE + 0x10: 0x00CF9300_0000FFFF,
    FLAT_RING3_CS32 & ~3: 0x00CFFB00_0000FFFF,
    FLAT_RING3_DS32 & ~3: 0x00CFF300_0000FFFF,
    FLAT_RING3_CS64 & ~3: 0x00AFFB00_0000FFFF,
    FIRST_RESERVED_GDT_BYTE + 0x38: 0x00CF9B00_0000FFFF,
}
_LOADED_32: Final = {selector: unpack(desc) for selector, desc in XEN_GDT_32.items()}
_LOADED_64: Final = {selector: unpack(desc) for selector, desc in XEN_GDT_64.items()}


class SegmentFault(Exception):
    """A selector could not be loaded: the exception that the CPU raises, and its error code."""

    def __init__(self, vector: Vector, error_code: int) -> None:
        super().__init__(vector, error_code)
        self.vector = vector
        self.error_code = error_code


def xen_gdt_page(is_64: bool) -> bytes:
    """The contents of Xen's page of the GDT."""
    page = bytearray(4096)
    for selector, desc in (XEN_GDT_64 if is_64 else XEN_GDT_32).items():
        page[selector - FIRST_RESERVED_GDT_BYTE : selector - FIRST_RESERVED_GDT_BYTE + 8] = (
            desc.to_bytes(8, "little")
        )
    return bytes(page)


def read_descriptor(current: Current, selector: int) -> int | None:
    """The descriptor that `selector` names; None when it lies outside its table, or in a page that
    cannot be a descriptor table's."""
    vcpu = current.vcpu
    offset = selector & ~7 & 0xFFFF
    if selector & SEL_TI_LDT:
        mfn = current.ldt_pages.frame_at(current.dom, vcpu, offset)
        if mfn is None:
            return None
        maddr = (mfn << PAGE_SHIFT) + (offset & 0xFFF)
        return int.from_bytes(current.view[maddr : maddr + 8], "little")
    if offset >= FIRST_RESERVED_GDT_BYTE:
        return (XEN_GDT_64 if vcpu.width.is_64 else XEN_GDT_32).get(offset)
    if offset >> 3 >= vcpu.gdt_entries:
        return None
    maddr = (vcpu.gdt_frames[offset >> PAGE_SHIFT] << PAGE_SHIFT) + (offset & 0xFFF)
    return int.from_bytes(current.view[maddr : maddr + 8], "little")


def code_segment(current: Current, selector: int) -> SegmentCache:
    """What CS would hold after a return to `selector`. Raises SegmentFault(#GP or #NP)."""
    loaded = (_LOADED_64 if current.vcpu.width.is_64 else _LOADED_32).get(selector & ~3)
    if loaded is not None and loaded.flags & 1 << 11 and loaded.flags >> 13 & 3 == selector & 3:
        return loaded
    return _code_segment(current, selector)


def _code_segment(current: Current, selector: int) -> SegmentCache:
    error_code = selector & 0xFFFC
    desc = read_descriptor(current, selector) if selector & ~3 else None
    if desc is None or not (desc & DESC_S and desc & DESC_CODE):
        raise SegmentFault(Vector.GP, error_code)
    rpl = selector & SEL_RPL
    dpl = desc_dpl(desc)
    if dpl > rpl or (dpl != rpl and not desc & DESC_CONFORMING):
        # 64-bit kernels run with CS e030 turned e033: the same descriptor seen from ring 3
        raise SegmentFault(Vector.GP, error_code)
    if not desc & DESC_P:
        raise SegmentFault(Vector.NP, error_code)
    return unpack(desc)


def stack_segment(current: Current, selector: int, cpl: int) -> SegmentCache:
    """What SS would hold at `cpl`. Raises SegmentFault(#GP or #SS)."""
    if not selector & ~3:
        # a null SS is allowed in 64-bit mode below ring 3
        if current.vcpu.width.is_64:
            return SegmentCache(0, 0xFFFFFFFF, 0x00CFF300)
        raise SegmentFault(Vector.GP, 0)
    loaded = (_LOADED_64 if current.vcpu.width.is_64 else _LOADED_32).get(selector & ~3)
    if loaded is not None and not loaded.flags & 1 << 11 and loaded.flags >> 13 & 3 == cpl:
        return loaded
    error_code = selector & 0xFFFC
    desc = read_descriptor(current, selector)
    if desc is None or not is_writable_data(desc) or desc_dpl(desc) != cpl or selector & 3 != cpl:
        raise SegmentFault(Vector.GP, error_code)
    if not desc & DESC_P:
        raise SegmentFault(Vector.SS, error_code)
    return unpack(desc)


def data_segment(current: Current, selector: int, cpl: int) -> SegmentCache:
    """What DS, ES, FS or GS would hold. Raises SegmentFault(#GP or #NP)."""
    if not selector & ~3:
        return NULL_SEGMENT
    error_code = selector & 0xFFFC
    desc = read_descriptor(current, selector)
    if desc is None or not is_readable(desc):
        raise SegmentFault(Vector.GP, error_code)
    conforming = desc & DESC_CODE and desc & DESC_CONFORMING
    if not conforming and desc_dpl(desc) < max(cpl, selector & SEL_RPL):
        raise SegmentFault(Vector.GP, error_code)
    if not desc & DESC_P:
        raise SegmentFault(Vector.NP, error_code)
    return unpack(desc)


def null_privileged_data_segments(current: Current, cpl: int) -> None:
    """After a return to a less privileged ring, drop data segments that it may not use (IRET)."""
    state = current.state
    for register in (ES, DS, FS, GS):
        flags = state.segment_flags(register)
        is_conforming = flags >> 10 & 3 == 3
        if flags >> 13 & 3 < cpl and not is_conforming and state.selector(register) & ~3:
            state.set_segment(register, 0, 0, 0, 0)


def reload_data_segments(current: Current) -> tuple[int, ...] | None:
    """Load DS, ES, FS and GS anew, as Xen does when it comes back to a vCPU (load_segments).

    Xen does so in ring 0, so only the selector's own RPL counts. What cannot be loaded any more is
    null afterwards; then the result is the selectors as they were, else None. The bases of FS and
    GS have a life of their own in 64-bit mode and stay.
    """
    state = current.state
    is_64 = current.vcpu.width.is_64
    of = state.selector
    if not (of(DS) | of(ES) | of(FS) | of(GS)) & ~SEL_RPL:
        return None  # as 64-bit kernels have them
    before = [state.segment(register) for register in DATA_SEGMENTS]
    failed = False
    for register, (selector, base, limit, flags) in zip(DATA_SEGMENTS, before, strict=True):
        if not selector & ~SEL_RPL:
            continue
        try:
            loaded = data_segment(current, selector, 0)
        except SegmentFault:
            failed = True
            state.set_segment(register, 0, base if is_64 else 0, limit if is_64 else 0, 0)
        else:
            if not is_64 and loaded != (base, limit, flags):
                state.set_segment(register, selector, *loaded)
    return tuple(segment.selector for segment in before) if failed else None


__all__ = [
    "CS",
    "SS",
    "SegmentFault",
    "code_segment",
    "data_segment",
    "null_privileged_data_segments",
    "read_descriptor",
    "reload_data_segments",
    "stack_segment",
    "xen_gdt_page",
]
