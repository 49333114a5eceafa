"""What a domain holds references on, besides what its page tables name: for the audit."""

from __future__ import annotations

from itertools import chain

from hypervisor.control.host import Host
from hypervisor.domain.domain import Domain
from hypervisor.mm.audit_subject import AuditSubject
from hypervisor.mm.frames import FrameType
from hypervisor.x86.paging import PAGE_SHIFT, PTE_P, pte_mfn


def audit_subject(host: Host, dom: Domain) -> AuditSubject:
    """Base pointers, descriptor tables, registered areas, rings, and Xen pages lent to it."""
    subject = AuditSubject(dom.page_tables)
    root = dom.page_tables.root_type
    for vcpu in dom.vcpus:
        subject.typed += [(mfn, root) for mfn in (vcpu.root_mfn, vcpu.user_root_mfn) if mfn]
        subject.typed += [(mfn, FrameType.SEGDESC) for mfn in vcpu.gdt_frames]
        if vcpu.vcpu_info_registered:
            subject.typed.append((vcpu.vcpu_info_maddr >> PAGE_SHIFT, FrameType.WRITABLE))
        for page in range(16, 32):
            entry = dom.page_tables.read_entry(dom.windows.entry_maddr(vcpu.vcpu_id, page))
            if entry & PTE_P:
                subject.typed.append((pte_mfn(entry), FrameType.SEGDESC))
    subject.typed += [(mfn, FrameType.WRITABLE) for mfn in dom.backend_frames]
    waiting = [*dom.page_tables.doomed, *chain(*dom.page_tables.kept.values())]
    subject.typed += [(mfn, FrameType(host.frames.type[mfn])) for mfn in waiting]
    subject.may_map_others = dom.privileged
    subject.lent.append(dom.shared_info_mfn)
    if (table := host.grants.tables.get(dom.domid)) is not None:
        subject.lent += table.frames
    return subject
