"""The 2-level ABI: the bitmaps by which a guest learns that an event happened.

A port is a bit in the domain's shared_info: `evtchn_pending` says that the event happened,
`evtchn_mask` that the guest does not want to hear of it now. Setting a pending bit that is not
masked sets the bit of its word in the vCPU's `evtchn_pending_sel`, and then
`evtchn_upcall_pending`: the order in which the guest takes them back (evtchn_2l_set_pending in
Xen's common/event_2l.c). All of it is the guest's to write at any time, so nothing here is
remembered anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a domain's bitmaps lie, and the word size that structures them."""

    pending: int  # machine address
    mask: int  # machine address
    selector: int  # offset in vcpu_info
    word_shift: int  # log2 of a word's bits
    words: memoryview  # of machine memory, of the guest's word size
    bytes_shift: int  # log2 of a word's bytes


class TwoLevel:
    """Reads and writes the event bitmaps of any domain."""

    def __init__(self, memory: MachineMemory) -> None:
        self._memory = memory
        self._view = memory.view
        self._places: dict[int, _Place] = {}

    def add_domain(self, dom: Domain) -> None:
        """`dom` has bitmaps, in its shared_info."""
        width, base = dom.width, dom.shared_info_mfn << PAGE_SHIFT
        self._places[dom.domid] = _Place(
            base + _PENDING[width],
            base + _MASK[width],
            _SELECTOR[width],
            width.bits.bit_length() - 1,
            self._memory.u64 if width.is_64 else self._memory.u32,
            width.word_bytes.bit_length() - 1,
        )

    def remove_domain(self, domid: int) -> None:
        """It has them no longer."""
        del self._places[domid]

    def is_pending(self, dom: Domain, port: int) -> bool:
        """Whether the event of `port` has happened and was not taken yet."""
        at = self._places[dom.domid].pending + (port >> 3)
        return bool(self._view[at] >> (port & 7) & 1)

    def is_masked(self, dom: Domain, port: int) -> bool:
        """Whether the guest does not want to hear of `port`."""
        at = self._places[dom.domid].mask + (port >> 3)
        return bool(self._view[at] >> (port & 7) & 1)

    def clear_pending(self, dom: Domain, port: int) -> None:
        """Forget an event that nobody will take."""
        self._view[self._places[dom.domid].pending + (port >> 3)] &= ~(1 << (port & 7)) & 0xFF

    def set_pending(self, dom: Domain, port: int, vcpu: Vcpu) -> tuple[bool, bool]:
        """Let the event of `port` have happened, for `vcpu`.

        Returns whether that is news, and whether it made an upcall pending.
        """
        place, view = self._places[dom.domid], self._view
        at, bit = port >> 3, 1 << (port & 7)
        before = view[place.pending + at]
        if before & bit:
            return False, False
        view[place.pending + at] = before | bit
        return True, not view[place.mask + at] & bit and self._select(place, port, vcpu)

    def unmask(self, dom: Domain, port: int, vcpu: Vcpu) -> bool:
        """Clear the mask of `port`; whether that made an upcall pending, for an event waiting."""
        place, view = self._places[dom.domid], self._view
        at, bit = port >> 3, 1 << (port & 7)
        if not view[place.mask + at] & bit:
            return False
        view[place.mask + at] &= ~bit & 0xFF
        return bool(view[place.pending + at] & bit) and self._select(place, port, vcpu)

    def mark_pending(self, vcpu: Vcpu) -> bool:
        """Set evtchn_upcall_pending; whether it was clear."""
        at = vcpu.vcpu_info_maddr
        if self._view[at]:
            return False
        self._view[at] = 1
        return True

    def _select(self, place: _Place, port: int, vcpu: Vcpu) -> bool:
        """Point `vcpu` at the word of `port`; whether that made an upcall pending."""
        words = place.words
        at = vcpu.vcpu_info_maddr + place.selector >> place.bytes_shift
        selector = words[at]
        bit = 1 << (port >> place.word_shift)
        if selector & bit:
            return False
        words[at] = selector | bit
        return self.mark_pending(vcpu)
