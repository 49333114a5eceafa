"""The pages of LDTs: mapped into Xen's windows when a descriptor in them is first looked at.

A guest names its LDT by a linear address, and the pages there need only be valid descriptors when
the CPU, or the VMM in its place, reads them. So each is mapped on first use: the guest's own leaf
entry names the frame, which has to become a descriptor page (type SEGDESC, hence mapped writable
nowhere), and from then on it is read through the window (pv_map_ldt_shadow_page in Xen's
arch/x86/pv/mm.c). Nothing ever reads a descriptor that was not checked.
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.mm.entries import PAGING_MODE
from hypervisor.mm.frames import FrameTable, FrameType
from hypervisor.mm.walk import leaf_finder
from hypervisor.x86.paging import PAGE_SHIFT, PTE_P, pte_mfn

LDT_FIRST_PAGE: Final = 16  # of a vCPU's window
_M32: Final = 0xFFFF_FFFF


class LdtPages:
    """Finds, and maps, the frames that LDTs lie in."""

    def __init__(self, frames: FrameTable) -> None:
        memory = frames.memory
        self._words = {4: memory.u32, 8: memory.u64}
        self._find_leaf = {width: leaf_finder(memory, PAGING_MODE[width]) for width in Width}

    def frame_at(self, dom: Domain, vcpu: Vcpu, offset: int) -> int | None:
        """The frame with the descriptor at `offset` of the LDT; None where there can be none."""
        if offset >> 3 >= vcpu.ldt_entries:
            return None
        entry = dom.windows.entry_maddr(vcpu.vcpu_id, LDT_FIRST_PAGE + (offset >> PAGE_SHIFT))
        mapped = dom.page_tables.read_entry(entry)
        return pte_mfn(mapped) if mapped & PTE_P else self._map(dom, vcpu, offset, entry)

    def _map(self, dom: Domain, vcpu: Vcpu, offset: int, window_entry: int) -> int | None:
        """By the kernel's tables, whoever runs; the page was not mapped, so nothing is flushed."""
        vaddr = vcpu.ldt_vaddr + offset
        if not vcpu.width.is_64:
            vaddr &= _M32
        leaf = self._find_leaf[dom.width](vcpu.root_mfn << PAGE_SHIFT, vaddr)
        entry = 0 if leaf is None else dom.page_tables.read_entry(leaf)
        if not entry & PTE_P:
            return None
        mfn = pte_mfn(entry)
        try:
            dom.page_tables.get_page_and_type(mfn, FrameType.SEGDESC)
        except XenError:
            return None
        mode = dom.page_tables.mode
        self._words[mode.entry_bytes][window_entry >> mode.entry_shift] = dom.windows.leaf(mfn)
        return mfn
