"""The 2-level ABI: the bitmaps by which a guest learns that an event happened.

A port is a bit in the domain's shared_info: `evtchn_pending` says that the event happened,
`evtchn_mask` that the guest does not want to hear of it now. Setting a pending bit that is not
masked sets the bit of its word in the vCPU's `evtchn_pending_sel`, and then
`evtchn_upcall_pending`: the order in which the guest takes them back (evtchn_2l_set_pending in
Xen's common/event_2l.c). All of it is the guest's to write at any time, so nothing here is
remembered anywhere else.
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.layout import layout
from hypervisor.abi.width import Width
from hypervisor.abi.xen import SharedInfo, VcpuInfo
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.machine.memory import MachineMemory
from hypervisor.x86.paging import PAGE_SHIFT

_PENDING: Final = {w: layout(SharedInfo, w).offset("evtchn_pending") for w in Width}
_MASK: Final = {w: layout(SharedInfo, w).offset("evtchn_mask") for w in Width}
_SELECTOR: Final = {w: layout(VcpuInfo, w).offset("evtchn_pending_sel") for w in Width}


def nr_ports(width: Width) -> int:
    """How many ports the bitmaps hold: 1024 or 4096."""
    return width.bits * width.bits


class TwoLevel:
    """Reads and writes the event bitmaps of any domain."""

    def __init__(self, memory: MachineMemory) -> None:
        self._view = memory.view

    def is_pending(self, dom: Domain, port: int) -> bool:
        """Whether the event of `port` has happened and was not taken yet."""
        return self._test(dom, _PENDING[dom.width], port)

    def is_masked(self, dom: Domain, port: int) -> bool:
        """Whether the guest does not want to hear of `port`."""
        return self._test(dom, _MASK[dom.width], port)

    def clear_pending(self, dom: Domain, port: int) -> None:
        """Forget an event that nobody will take."""
        self._write(dom, _PENDING[dom.width], port, False)

    def set_pending(self, dom: Domain, port: int, vcpu: Vcpu) -> tuple[bool, bool]:
        """Let the event of `port` have happened, for `vcpu`.

        Returns whether that is news, and whether it made an upcall pending.
        """
        if self.is_pending(dom, port):
            return False, False
        self._write(dom, _PENDING[dom.width], port, True)
        return True, not self.is_masked(dom, port) and self._select(dom, port, vcpu)

    def unmask(self, dom: Domain, port: int, vcpu: Vcpu) -> bool:
        """Clear the mask of `port`; whether that made an upcall pending, for an event waiting."""
        if not self.is_masked(dom, port):
            return False
        self._write(dom, _MASK[dom.width], port, False)
        return self.is_pending(dom, port) and self._select(dom, port, vcpu)

    def mark_pending(self, vcpu: Vcpu) -> bool:
        """Set evtchn_upcall_pending; whether it was clear."""
        at = vcpu.vcpu_info_maddr
        if self._view[at]:
            return False
        self._view[at] = 1
        return True

    def _select(self, dom: Domain, port: int, vcpu: Vcpu) -> bool:
        """Point `vcpu` at the word of `port`; whether that made an upcall pending."""
        width = dom.width
        size = width.word_bytes
        at = vcpu.vcpu_info_maddr + _SELECTOR[width]
        selector = int.from_bytes(self._view[at : at + size], "little")
        bit = 1 << port // width.bits
        if selector & bit:
            return False
        self._view[at : at + size] = (selector | bit).to_bytes(size, "little")
        return self.mark_pending(vcpu)

    def _test(self, dom: Domain, offset: int, port: int) -> bool:
        at = (dom.shared_info_mfn << PAGE_SHIFT) + offset + (port >> 3)
        return bool(self._view[at] >> (port & 7) & 1)

    def _write(self, dom: Domain, offset: int, port: int, value: bool) -> None:
        at = (dom.shared_info_mfn << PAGE_SHIFT) + offset + (port >> 3)
        bit = 1 << (port & 7)
        self._view[at] = self._view[at] | bit if value else self._view[at] & ~bit
