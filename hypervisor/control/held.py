"""What holds references on a domain's frames besides the entries of its page tables.

The audit counts these; whoever looks at a frame is told them in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from hypervisor.control.host import Host
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.events.fifo import held_frames
from hypervisor.mm.audit_subject import AuditSubject
from hypervisor.mm.frames import FrameType
from hypervisor.x86.paging import PAGE_SHIFT, PTE_P, pte_mfn


@dataclass(frozen=True, slots=True)
class Hold:
    """One general and one type reference on a frame, and who has them."""

    mfn: int
    kind: FrameType
    why: str


def holds_of(host: Host, dom: Domain) -> Iterator[Hold]:
    """Base pointers, descriptor tables, registered areas, rings, unfinished work."""
    for vcpu in dom.vcpus:
        yield from _of_vcpu(dom, vcpu)
    for mfn in dom.backend_frames:
        yield Hold(mfn, FrameType.WRITABLE, "a ring that Xen's back end reads and writes")
    ports = host.events.tables.get(dom.domid)
    if ports is not None and ports.fifo is not None:
        for mfn in held_frames(ports.fifo):
            yield Hold(mfn, FrameType.WRITABLE, "a control block or event words (FIFO)")
    waiting = [*dom.page_tables.doomed, *chain(*dom.page_tables.kept.values())]
    for mfn in waiting:
        kind = FrameType(host.frames.type[mfn])
        yield Hold(mfn, kind, "a long hypercall that is not finished yet")


def _of_vcpu(dom: Domain, vcpu: Vcpu) -> Iterator[Hold]:
    root = dom.page_tables.root_type
    if vcpu.root_mfn:
        yield Hold(vcpu.root_mfn, root, f"the base pointer (cr3) of {vcpu.name}")
    if vcpu.user_root_mfn:
        yield Hold(vcpu.user_root_mfn, root, f"the user base pointer of {vcpu.name}")
    for page, mfn in enumerate(vcpu.gdt_frames):
        yield Hold(mfn, FrameType.SEGDESC, f"page {page} of the GDT of {vcpu.name}")
    if vcpu.vcpu_info_registered:
        mfn = vcpu.vcpu_info_maddr >> PAGE_SHIFT
        yield Hold(mfn, FrameType.WRITABLE, f"the vcpu_info that {vcpu.name} registered")
    for page in range(16, 32):
        entry = dom.page_tables.read_entry(dom.windows.entry_maddr(vcpu.vcpu_id, page))
        if entry & PTE_P:
            why = f"page {page - 16} of the LDT of {vcpu.name}"
            yield Hold(pte_mfn(entry), FrameType.SEGDESC, why)


def lent_to(host: Host, dom: Domain) -> dict[int, str]:
    """The pages of Xen's that `dom` may map, and what each is."""
    lent = {dom.shared_info_mfn: "shared_info"}
    if (table := host.grants.tables.get(dom.domid)) is not None:
        lent |= {mfn: f"page {page} of the grant table" for page, mfn in enumerate(table.frames)}
    return lent


def audit_subject(host: Host, dom: Domain) -> AuditSubject:
    """All that `dom` holds, for the audit."""
    return AuditSubject(
        dom.page_tables,
        typed=[(hold.mfn, hold.kind) for hold in holds_of(host, dom)],
        lent=list(lent_to(host, dom)),
        may_map_others=dom.privileged,
    )
