"""Creating and destroying domains: every frame, port and timer is given and taken here.

The order is Xen's toolstack's: frames, shared_info, ports for console and xenstore, image, page
tables, then the boot vCPU. Whatever fails on the way, nothing is left behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hypervisor.abi.arch_x86_32 import FLAT_RING1_CS, FLAT_RING1_DS
from hypervisor.abi.errors import XenError
from hypervisor.abi.types import DOMID_FIRST_RESERVED
from hypervisor.abi.width import Width
from hypervisor.abi.xen import SIF_PRIVILEGED, XEN_LEGACY_MAX_VCPUS, Virq
from hypervisor.control.host import Host
from hypervisor.control.vcpu_context import CPU_MODE, GDT_LIMIT
from hypervisor.domain.builder import BuildError, BuildParams, StartOfDay, build
from hypervisor.domain.domain import (
    UPCALL_MASK_OFFSET,
    VCPU_INFO_BYTES,
    Domain,
    DomainState,
    Vcpu,
    VcpuState,
)
from hypervisor.domain.image import GuestImage
from hypervisor.domain.layout import plan
from hypervisor.events.time import update_wallclock
from hypervisor.mm.frames import ALLOCATED, PINNED, FrameType
from hypervisor.mm.pagetables import PageTables
from hypervisor.sched.params import DEFAULT_PARAMS, SchedParams
from hypervisor.traps.bounce import load_kernel_64
from hypervisor.traps.segments import code_segment, data_segment, stack_segment
from hypervisor.x86.flags import (
    CR0_TS,
    CS,
    DS,
    EFLAGS_FIXED,
    EFLAGS_IF,
    ES,
    FS,
    GS,
    RSI,
    RSP,
    SS,
)
from hypervisor.x86.paging import PAGE_SHIFT

DEFAULT_PERIOD_NS: Final = 10_000_000  # PV guests start with a 100 Hz tick (pv_vcpu_initialise)
_DOM0: Final = 0


@dataclass(frozen=True, slots=True)
class DomainParams:
    """What a new domain is to be."""

    name: str
    memory_mib: int
    cmdline: str = ""
    ramdisk: bytes | None = None
    privileged: bool = False
    nr_vcpus: int = 1
    sched: SchedParams = DEFAULT_PARAMS


def create_domain(host: Host, image: GuestImage, params: DomainParams) -> Domain:
    """A domain that is ready to run `image`, paused once until its backends are attached.

    Raises BuildError with a sentence if the image or the memory do not do; the machine is then as
    it was.
    """
    domid = host.next_domid
    if domid >= DOMID_FIRST_RESERVED:
        raise BuildError(f"this machine has had {domid - 1} domains and has no number for another")
    machine_mib = host.memory.size_bytes >> 20
    if image.width is Width.X86_32 and machine_mib > 4096:
        raise BuildError(
            "x86_32 page tables reach 4096 MiB of machine memory, "
            f"this machine has {machine_mib} MiB"
        )
    if not 1 <= params.nr_vcpus <= XEN_LEGACY_MAX_VCPUS:
        raise BuildError(
            f"a domain has 1 to {XEN_LEGACY_MAX_VCPUS} vCPUs here, not {params.nr_vcpus}"
        )
    nr_frames = params.memory_mib << 20 - PAGE_SHIFT
    layout = plan(image, nr_frames, params.cmdline, params.ramdisk)
    try:
        dom = _empty_domain(host, domid, image, nr_frames, params)
    except XenError as refusal:
        raise BuildError(f"the machine cannot hold {params.name}: {refusal.why}") from None
    host.next_domid += 1
    try:
        build_params = BuildParams(
            shared_info_maddr=dom.shared_info_mfn << PAGE_SHIFT,
            store_port=dom.store_port,
            console_port=dom.console_port,
            flags=SIF_PRIVILEGED if params.privileged else 0,
        )
        start = build(host.memory, image, dom.p2m, layout, build_params)
        dom.console_mfn, dom.store_mfn = start.console_mfn, start.store_mfn
        _enter_page_tables(dom, start)
    except (BuildError, XenError) as failure:
        destroy_domain(host, dom)
        why = failure.why if isinstance(failure, XenError) else str(failure)
        raise BuildError(f"{params.name} cannot be built: {why}") from None
    _start_boot_vcpu(host, dom, start)
    return dom


def _empty_domain(
    host: Host, domid: int, image: GuestImage, nr_frames: int, params: DomainParams
) -> Domain:
    """A domain with frames, shared_info and ports, and nothing in them yet."""
    frames = host.frames
    p2m = frames.allocate(domid, nr_frames + 1)
    shared_info = p2m.pop()
    try:
        windows = host.mappings.for_domain(
            image.width, params.nr_vcpus, host.gdt_page(image.width.is_64)
        )
    except XenError:
        for mfn in (*p2m, shared_info):
            frames.release_allocation(mfn)
        raise
    frames.lend(shared_info)
    for pfn, mfn in enumerate(p2m):
        host.m2p.set(mfn, pfn)
    base = shared_info << PAGE_SHIFT
    vcpus = [
        Vcpu(
            domid,
            idx,
            image.width,
            base + idx * VCPU_INFO_BYTES,
            periodic_ns=DEFAULT_PERIOD_NS,
        )
        for idx in range(params.nr_vcpus)
    ]
    for idx in range(XEN_LEGACY_MAX_VCPUS):
        host.memory.view[base + idx * VCPU_INFO_BYTES + UPCALL_MASK_OFFSET] = 1
    dom = Domain(
        domid=domid,
        name=params.name,
        width=image.width,
        page_tables=PageTables(frames, image.width, domid, windows.xen_slots),
        windows=windows,
        p2m=p2m,
        max_frames=nr_frames,
        shared_info_mfn=shared_info,
        vcpus=vcpus,
        privileged=params.privileged,
        paused=1,
        symbols=image.symbols,
        handle=domid.to_bytes(16, "big"),
    )
    host.domains[domid] = dom
    host.events.add_domain(dom)
    host.scheduler.add_domain(domid, params.sched, host.now_ns)
    dom.store_port = host.events.bind_backend(dom, "xenstore", _DOM0)
    dom.console_port = host.events.bind_backend(dom, "console", _DOM0)
    update_wallclock(host.memory, dom, host.wallclock_offset_ns)
    return dom


def _enter_page_tables(dom: Domain, start: StartOfDay) -> None:
    """Validate the tables from the root on; the vCPU and a pin each hold it."""
    tables = dom.page_tables
    tables.pin(start.root_mfn, tables.root_type)
    tables.get_page_and_type(start.root_mfn, tables.root_type)
    dom.vcpus[0].root_mfn = start.root_mfn


def _start_boot_vcpu(host: Host, dom: Domain, start: StartOfDay) -> None:
    """vCPU 0's registers are as a PV kernel finds them at entry (start of day, public/xen.h)."""
    vcpu = dom.vcpus[0]
    state = host.cpu.state
    before = state.save()
    state.load(host.cpu.initial_state(CPU_MODE[dom.width]))
    host.current.set(dom, vcpu)
    state.gdt = (dom.windows.gdt_vaddr(0), GDT_LIMIT)
    state.cr3 = vcpu.root_mfn << PAGE_SHIFT
    state.cr0 |= CR0_TS
    vcpu.cr4 = state.cr4
    if dom.width.is_64:
        _start_segments_64(host)
    else:
        _start_segments_32(host)
        vcpu.kernel_ss, vcpu.kernel_sp = FLAT_RING1_DS, start.stack_top
    state.rip = start.entry
    state.rflags = EFLAGS_FIXED | EFLAGS_IF
    state.set_gpr(RSI, start.start_info)
    state.set_gpr(RSP, start.stack_top)
    host.descriptor_tables.load_ldt(host.current)
    vcpu.saved = state.save()
    state.load(before)
    if host.running is not None:  # and goes on as itself when the machine runs again
        host.current.set(host.domain_of(host.running), host.running)
    host.bring_up(vcpu)


def _start_segments_32(host: Host) -> None:
    current = host.current
    state = current.state
    state.set_segment(CS, FLAT_RING1_CS, *code_segment(current, FLAT_RING1_CS))
    state.set_segment(SS, FLAT_RING1_DS, *stack_segment(current, FLAT_RING1_DS, 1))
    for register in (DS, ES, FS, GS):
        segment = data_segment(current, FLAT_RING1_DS, 1)
        state.set_segment(register, FLAT_RING1_DS, *segment)
    state.set_cpl(1)


def _start_segments_64(host: Host) -> None:
    state = host.current.state
    for register in (DS, ES, FS, GS):
        state.set_segment(register, 0, 0, 0xFFFF_FFFF, 0x00CFF300)
    load_kernel_64(host.current)


# --- destruction
# --------------------------------------------------------------------------------------
def destroy_domain(host: Host, dom: Domain) -> None:
    """End `dom` and give everything it had back to the machine."""
    if dom.state is DomainState.DESTROYED:
        return
    host.forget(dom)
    dom.state = DomainState.DESTROYED
    for vcpu in dom.vcpus:
        vcpu.state = VcpuState.DOWN
        _release_vcpu(host, dom, vcpu)
    _relinquish_memory(host, dom)
    host.grants.release(dom.domid)
    host.frames.take_back(dom.shared_info_mfn)
    for mfn in dom.windows.tables:
        host.frames.release_allocation(mfn)
    host.flush_tlb()
    del host.domains[dom.domid]
    host.send_global_virq(Virq.DOM_EXC, besides=dom)


def _release_vcpu(host: Host, dom: Domain, vcpu: Vcpu) -> None:
    host.descriptor_tables.release(dom, vcpu)
    tables = dom.page_tables
    for root in (vcpu.root_mfn, vcpu.user_root_mfn):
        if root:
            tables.put_page_and_type(root)
    vcpu.root_mfn = vcpu.user_root_mfn = 0
    if vcpu.vcpu_info_registered:
        tables.put_page_and_type(vcpu.vcpu_info_maddr >> PAGE_SHIFT)
        vcpu.vcpu_info_registered = False


def _relinquish_memory(host: Host, dom: Domain) -> None:
    """Unpin every table, from the top level down, then give up the reservation."""
    frames = host.frames
    dom.page_tables.abandon()
    owned = frames.owned_by(dom.domid)
    for kind in (FrameType.L4, FrameType.L3, FrameType.XEN_L2, FrameType.L2, FrameType.L1):
        for mfn in owned:
            if frames.flags[mfn] & PINNED and frames.type[mfn] == kind:
                dom.page_tables.unpin(mfn)
    for mfn in owned:
        if frames.owner[mfn] == dom.domid and frames.flags[mfn] & ALLOCATED:
            host.m2p.clear(mfn)
            frames.release_allocation(mfn)
