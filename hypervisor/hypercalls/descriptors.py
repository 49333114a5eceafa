"""set_gdt and update_descriptor (Xen's arch/x86/pv/descriptor-tables.c)."""

from __future__ import annotations

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.xen import HypercallNr
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import hypercall
from hypervisor.mm.descriptors import MAX_GDT_ENTRIES, checked_descriptor
from hypervisor.mm.frames import FrameType
from hypervisor.traps.descriptor_tables import gdt_pages
from hypervisor.x86.paging import PAGE_SHIFT


@hypercall(HypercallNr.SET_GDT, args=2)
def set_gdt(caller: Caller, frames_vaddr: int, entries: int) -> int:
    """Use the frames listed at `frames_vaddr` as the GDT, of `entries` descriptors."""
    entries &= 0xFFFF_FFFF  # an unsigned int to Xen
    if entries > MAX_GDT_ENTRIES:
        raise XenError(Errno.EINVAL, f"a GDT of {entries} entries; Xen's own begin at 7168")
    size = caller.width.word_bytes
    raw = caller.mem.read(frames_vaddr, gdt_pages(entries) * size)
    mfns = [int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)]
    caller.host.descriptor_tables.set_gdt(caller.dom, caller.vcpu, mfns, entries)
    return 0


@hypercall(HypercallNr.UPDATE_DESCRIPTOR, args=4)
def update_descriptor(caller: Caller, a: int, b: int, c: int, d: int) -> int:
    """Change one descriptor of a table in use, or of ordinary memory that may become one.

    A frame that was a table last is taken as one again, its other descriptors checked, even when
    nothing uses it (do_update_descriptor).
    """
    maddr, desc = (a, b) if caller.width.is_64 else (a | b << 32, c | d << 32)
    if maddr & 7:
        raise XenError(Errno.EINVAL, f"descriptor address {maddr:#x} is not aligned")
    desc = checked_descriptor(caller.width, desc)
    mfn = maddr >> PAGE_SHIFT
    tables = caller.dom.page_tables
    frames = caller.host.frames
    frames.get_page(mfn, caller.dom.domid)
    try:
        is_table = frames.type[mfn] == FrameType.SEGDESC
        tables.get_page_type(mfn, FrameType.SEGDESC if is_table else FrameType.WRITABLE)
        caller.host.memory.u64[maddr >> 3] = desc
        caller.host.cpu.code_written(maddr, 8)
        tables.put_page_type(mfn)
    finally:
        frames.put_page(mfn)
    return 0
