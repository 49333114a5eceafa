"""The GDT and LDT of a vCPU: frames of the guest, seen by the CPU through windows in Xen's region.

The GDT's pages are mapped when the guest names them. The LDT's are mapped on the first use of each
(ldt_pages): that page fault never reaches the guest.
"""

from __future__ import annotations

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.machine.cpu import Cpu
from hypervisor.mm.descriptors import ENTRIES_PER_PAGE, MAX_GDT_ENTRIES
from hypervisor.mm.frames import FrameTable, FrameType
from hypervisor.mm.hole_map import GDT_GUEST_PAGES
from hypervisor.traps.current import Current
from hypervisor.traps.ldt_pages import LDT_FIRST_PAGE
from hypervisor.x86.paging import PAGE_SHIFT, PTE_FRAME, PTE_P

_LDT_FLAGS = 0x8200  # present, type 2: an LDT (SDM 3A 3.5)


class DescriptorTables:
    """Changes what the CPU reads as a vCPU's descriptor tables."""

    def __init__(self, frames: FrameTable, cpu: Cpu) -> None:
        self._frames = frames
        self._cpu = cpu

    def set_gdt(self, dom: Domain, vcpu: Vcpu, mfns: list[int], entries: int) -> None:
        """Use `mfns` as the GDT. Raises XenError(EINVAL), nothing changed, if one cannot be."""
        if entries > MAX_GDT_ENTRIES:
            raise XenError(Errno.EINVAL, f"a GDT of {entries} entries; Xen's begin at 7168")
        taken: list[int] = []
        try:
            for mfn in mfns:
                dom.page_tables.get_page_and_type(mfn, FrameType.SEGDESC)
                taken.append(mfn)
        except XenError:
            for mfn in taken:
                dom.page_tables.put_page_and_type(mfn)
            raise
        old, vcpu.gdt_frames, vcpu.gdt_entries = vcpu.gdt_frames, list(mfns), entries
        vcpu.traps.set_gdt(mfns, entries)
        for page in range(GDT_GUEST_PAGES):
            self._map(dom, vcpu, page, mfns[page] if page < len(mfns) else None)
        for mfn in old:
            dom.page_tables.put_page_and_type(mfn)

    def set_ldt(self, current: Current, vaddr: int, entries: int) -> None:
        """Use `entries` descriptors at `vaddr` as the LDT of the guest on the CPU."""
        vcpu = current.vcpu
        if (vcpu.ldt_vaddr, vcpu.ldt_entries) == (vaddr, entries):
            return
        self.drop_ldt(current.dom, vcpu)
        vcpu.ldt_vaddr, vcpu.ldt_entries = vaddr, entries
        self.load_ldt(current)

    def load_ldt(self, current: Current) -> None:
        """Let the CPU's LDT register name the window of the guest on the CPU."""
        vcpu = current.vcpu
        base = current.dom.windows.ldt_vaddr(vcpu.vcpu_id)
        limit = max(vcpu.ldt_entries * 8 - 1, 0)
        current.state.set_ldt(8 if vcpu.ldt_entries else 0, base, limit, _LDT_FLAGS)

    def drop_ldt(self, dom: Domain, vcpu: Vcpu) -> None:
        """Unmap all pages of the LDT window."""
        for page in range(LDT_FIRST_PAGE, 2 * LDT_FIRST_PAGE):
            entry = dom.page_tables.read_entry(dom.windows.entry_maddr(vcpu.vcpu_id, page))
            if entry & PTE_P:
                self._map(dom, vcpu, page, None)
                dom.page_tables.put_page_and_type((entry & PTE_FRAME) >> PAGE_SHIFT)

    def ldt_fault(self, current: Current, fault_vaddr: int) -> int | None:
        """Repair a page fault in the LDT window: None when that is done.

        Else where the guest's own fault is: in its LDT, or where it was anyway
        (handle_ldt_mapping_fault in Xen's arch/x86/traps.c).
        """
        vcpu = current.vcpu
        offset = fault_vaddr - current.dom.windows.ldt_vaddr(vcpu.vcpu_id)
        if not 0 <= offset < vcpu.ldt_entries * 8:
            return fault_vaddr
        if current.ldt_pages.frame_at(current.dom, vcpu, offset) is not None:
            return None
        mask = (1 << vcpu.width.bits) - 1
        return vcpu.ldt_vaddr + offset & mask

    def release(self, dom: Domain, vcpu: Vcpu) -> None:
        """Give back everything that a vCPU's tables hold."""
        self.drop_ldt(dom, vcpu)
        vcpu.ldt_entries = 0
        self.set_gdt(dom, vcpu, [], 0)

    def _map(self, dom: Domain, vcpu: Vcpu, page: int, mfn: int | None) -> None:
        maddr = dom.windows.entry_maddr(vcpu.vcpu_id, page)
        entry = dom.windows.empty_leaf(page) if mfn is None else dom.windows.leaf(mfn)
        mode = dom.page_tables.mode
        words = self._frames.memory.u32 if mode.entry_bytes == 4 else self._frames.memory.u64
        old = words[maddr >> mode.entry_shift]
        words[maddr >> mode.entry_shift] = entry
        if old and old != entry:
            self._cpu.flush_tlb_page(dom.windows.gdt_vaddr(vcpu.vcpu_id) + (page << PAGE_SHIFT))


def gdt_pages(entries: int) -> int:
    """How many frames hold a GDT of `entries`."""
    return (entries + ENTRIES_PER_PAGE - 1) // ENTRIES_PER_PAGE
