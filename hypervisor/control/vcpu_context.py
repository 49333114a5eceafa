"""What a vCPU other than the boot vCPU starts with: struct vcpu_guest_context, checked and applied.

The same for VCPUOP_initialise and for a toolstack. The two widths' structures become one
`VcpuContext`, refused as a whole if a part of it may not be (arch_set_info_guest in Xen's
arch/x86/domain.c); then the tables it names are validated, and only when nothing can be refused any
more does the vCPU change.

Selectors are another matter: Xen loads them when the vCPU first runs. A data segment that cannot be
loaded then means the failsafe callback, and CS or SS an exception at the vCPU's first instruction.

Still missing: VGCF_I387_VALID. The FPU starts as after FNINIT, whatever fpu_ctxt holds; kernels
leave that flag clear, toolstacks that restore a domain set it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from hypervisor.abi import arch_x86_32, arch_x86_64
from hypervisor.abi.arch_x86 import FIRST_RESERVED_GDT_BYTE, Vgcf
from hypervisor.abi.arch_x86_64 import FLAT_KERNEL_CS64
from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.abi.xen import TI_DPL, TI_IF, TrapInfo
from hypervisor.control.host import Host
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.domain.trap_state import Callback, TrapGate
from hypervisor.machine.state import DetachedState, Mode
from hypervisor.mm.descriptors import MAX_LDT_ENTRIES, kernel_ring
from hypervisor.traps.current import Current
from hypervisor.traps.descriptor_tables import gdt_pages
from hypervisor.traps.emulate import PV_CR4, set_debugreg
from hypervisor.traps.segments import (
    DATA_SEGMENTS,
    SegmentFault,
    code_segment,
    data_segment,
    stack_segment,
)
from hypervisor.x86.flags import (
    CR0_TS,
    CS,
    DS,
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_IOPL_SHIFT,
    EFLAGS_VM,
    ES,
    FS,
    GPR_NAMES,
    GS,
    SS,
    is_canonical,
)
from hypervisor.x86.paging import PAGE_MASK, PAGE_SHIFT

GDT_LIMIT: Final = FIRST_RESERVED_GDT_BYTE + 4096 - 1  # the guest's pages and Xen's
CPU_MODE: Final[dict[Width, Mode]] = {
    Width.X86_32: "legacy32",
    Width.X86_32P: "pae",
    Width.X86_64: "long",
}
CONTEXT: Final[dict[Width, type[Any]]] = {
    Width.X86_32: arch_x86_32.VcpuGuestContext,
    Width.X86_32P: arch_x86_32.VcpuGuestContext,
    Width.X86_64: arch_x86_64.VcpuGuestContext,
}
_MAX_GDT_FRAMES: Final = 16
_NO_SEGMENT: Final = (0, 0xFFFF_FFFF, 0)  # base, limit, flags: not present
_FLAT: Final = (0, 0xFFFF_FFFF, 0x00CF_9300)  # what a frame is pushed on where SS cannot be loaded
_M32: Final = 0xFFFF_FFFF

SELECTOR_NAMES: Final = {CS: "cs", SS: "ss", DS: "ds", ES: "es", FS: "fs", GS: "gs"}


@dataclass(slots=True)
class VcpuContext:
    """What both widths' structures say, with selectors fixed up to the guest's own rings."""

    flags: int  # Vgcf
    gprs: list[int]
    rip: int
    rflags: int
    selectors: dict[int, int]
    gates: list[TrapGate]
    ldt_vaddr: int
    ldt_entries: int
    gdt_frames: list[int]
    gdt_entries: int
    kernel_ss: int
    kernel_sp: int
    task_switched: bool  # CR0.TS
    cr4: int
    root_mfn: int
    user_root_mfn: int  # 64-bit: 0 when none
    debug: list[int]
    event: Callback
    failsafe: Callback
    syscall: Callback
    fs_base: int = 0
    gs_base_kernel: int = 0
    gs_base_user: int = 0


# --- reading --------------------------------------------------------------------------------------
def checked_context(raw: Any, width: Width) -> VcpuContext:
    """The structure's contents. Raises XenError(EINVAL) for what no vCPU may start with."""
    context = _of_64(raw) if width.is_64 else _of_32(raw, width)
    if context.ldt_vaddr & PAGE_MASK or context.ldt_entries > MAX_LDT_ENTRIES:
        raise XenError(
            Errno.EINVAL, f"an LDT at {context.ldt_vaddr:#x} with {context.ldt_entries} entries"
        )
    if gdt_pages(context.gdt_entries) > _MAX_GDT_FRAMES:
        raise XenError(Errno.EINVAL, f"a GDT of {context.gdt_entries} entries")
    return context


def _of_64(raw: arch_x86_64.VcpuGuestContext) -> VcpuContext:
    regs = raw.user_regs
    if raw.debugreg[6] > _M32 or raw.debugreg[7] > _M32:
        raise XenError(Errno.EINVAL, "debug registers 6 and 7 have 32 bits")
    for vaddr in raw.debugreg[:4]:
        if not _is_guests(vaddr):
            raise XenError(Errno.EINVAL, f"a breakpoint at {vaddr:#x}, in Xen's region")
    addresses = [
        regs.rip, regs.rsp, raw.kernel_sp, raw.ldt_base if raw.ldt_ents else 0, raw.fs_base,
        raw.gs_base_kernel, raw.gs_base_user, raw.event_callback_eip, raw.syscall_callback_eip,
        raw.failsafe_callback_eip, *(info.address for info in raw.trap_ctxt),
    ]  # fmt: skip
    for vaddr in addresses:
        if not is_canonical(vaddr):
            raise XenError(Errno.EINVAL, f"address {vaddr:#x} is not canonical")
    if not _is_guests(raw.ldt_base):
        raise XenError(Errno.EINVAL, f"an LDT at {raw.ldt_base:#x}, in Xen's region")
    in_kernel = raw.flags & Vgcf.IN_KERNEL
    if not in_kernel and not raw.ctrlreg[1]:
        raise XenError(Errno.EINVAL, "user mode without a user page table")
    common = _common(raw, Width.X86_64)
    return replace(
        common,
        gprs=[getattr(regs, name) for name in GPR_NAMES],
        rip=regs.rip,
        rflags=regs.rflags,
        root_mfn=raw.ctrlreg[3] >> PAGE_SHIFT,
        user_root_mfn=raw.ctrlreg[1] >> PAGE_SHIFT,
        event=Callback(FLAT_KERNEL_CS64, raw.event_callback_eip),
        failsafe=replace(common.failsafe, cs=FLAT_KERNEL_CS64),
        syscall=Callback(
            FLAT_KERNEL_CS64,
            raw.syscall_callback_eip,
            bool(raw.flags & Vgcf.SYSCALL_DISABLES_EVENTS),
        ),
        fs_base=raw.fs_base,
        gs_base_kernel=raw.gs_base_kernel,
        gs_base_user=raw.gs_base_user,
    )


def _of_32(raw: arch_x86_32.VcpuGuestContext, width: Width) -> VcpuContext:
    regs = raw.user_regs
    common = _common(raw, width)
    cr3 = raw.ctrlreg[3]
    return replace(
        common,
        gprs=[getattr(regs, "e" + name[1:]) for name in GPR_NAMES[:8]],
        rip=regs.eip,
        rflags=regs.eflags,
        # a frame's number with its high bits folded into the low ones (xen_cr3_to_pfn)
        root_mfn=(cr3 >> PAGE_SHIFT | cr3 << 20) & _M32,
        event=Callback(_code_selector(raw.event_callback_cs, width), raw.event_callback_eip),
        failsafe=replace(common.failsafe, cs=_code_selector(raw.failsafe_callback_cs, width)),
    )


def _common(raw: Any, width: Width) -> VcpuContext:
    """What has the same name in both; the rest is filled in by the caller."""
    regs = raw.user_regs
    selectors = {register: getattr(regs, name) for register, name in SELECTOR_NAMES.items()}
    selectors[CS] = _code_selector(selectors[CS], width)
    selectors[SS] = _stack_selector(selectors[SS], width)
    return VcpuContext(
        flags=raw.flags,
        gprs=[],
        rip=0,
        rflags=0,
        selectors=selectors,
        gates=[_gate(info, width) for info in raw.trap_ctxt],
        ldt_vaddr=raw.ldt_base if raw.ldt_ents else 0,
        ldt_entries=raw.ldt_ents,
        gdt_frames=raw.gdt_frames,
        gdt_entries=raw.gdt_ents,
        kernel_ss=_stack_selector(raw.kernel_ss & 0xFFFF, width),
        kernel_sp=raw.kernel_sp,
        task_switched=bool(raw.ctrlreg[0] & CR0_TS),
        cr4=raw.ctrlreg[4],
        root_mfn=0,
        user_root_mfn=0,
        debug=raw.debugreg,
        event=Callback(),
        failsafe=Callback(
            0, raw.failsafe_callback_eip, bool(raw.flags & Vgcf.FAILSAFE_DISABLES_EVENTS)
        ),
        syscall=Callback(),
    )


def _gate(info: TrapInfo, width: Width) -> TrapGate:
    """Its place in the array counts, not its vector."""
    cs = _code_selector(info.cs, width)
    return TrapGate(cs, info.address, info.flags & TI_DPL, bool(info.flags & TI_IF))


def _code_selector(selector: int, width: Width) -> int:
    """fixup_guest_code_selector: the kernel's ring at least."""
    ring = kernel_ring(width)
    return selector & 0xFFFF if selector & 3 >= ring else selector & 0xFFFC | ring


_stack_selector = _code_selector  # fixup_guest_stack_selector does the same


def _is_guests(vaddr: int) -> bool:
    """Whether a 64-bit address is outside Xen's region."""
    return not arch_x86_64.HYPERVISOR_VIRT_START <= vaddr < arch_x86_64.HYPERVISOR_VIRT_END


# --- applying -------------------------------------------------------------------------------------
def hold_roots(dom: Domain, context: VcpuContext) -> None:
    """Validate the top-level tables, and hold them for a vCPU. Raises XenError, OutOfBudget."""
    tables = dom.page_tables
    tables.get_page_and_type(context.root_mfn, tables.root_type)
    if context.user_root_mfn:
        try:
            tables.get_page_and_type(context.user_root_mfn, tables.root_type)
        except BaseException:
            tables.put_page_and_type(context.root_mfn)
            raise


def initialise(host: Host, dom: Domain, vcpu: Vcpu, context: VcpuContext) -> None:
    """Let `vcpu` be as `context` says, its roots being held already; it stays down.

    Raises XenError, the roots given back, if the GDT's frames are refused.
    """
    frames = context.gdt_frames[: gdt_pages(context.gdt_entries)]
    try:
        host.descriptor_tables.set_gdt(dom, vcpu, frames, context.gdt_entries)
    except XenError:
        for root in (context.root_mfn, context.user_root_mfn):
            if root:
                dom.page_tables.put_page_and_type(root)
        raise
    _set_entry_points(vcpu, context)
    vcpu.root_mfn, vcpu.user_root_mfn = context.root_mfn, context.user_root_mfn
    vcpu.ldt_vaddr, vcpu.ldt_entries = context.ldt_vaddr, context.ldt_entries
    vcpu.kernel_mode = not dom.width.is_64 or bool(context.flags & Vgcf.IN_KERNEL)
    vcpu.iopl = context.rflags >> EFLAGS_IOPL_SHIFT & 3
    state = DetachedState(host.cpu.initial_state(CPU_MODE[dom.width]))
    current = host.current.away(vcpu, state)
    _set_system_registers(host, current, context)
    _set_registers(state, context)
    _load_segments(current, context)
    vcpu.saved = state.save()


def _set_entry_points(vcpu: Vcpu, context: VcpuContext) -> None:
    vcpu.gates[:] = context.gates
    vcpu.event_callback = context.event
    vcpu.failsafe_callback = context.failsafe
    vcpu.syscall_callback = context.syscall
    vcpu.kernel_ss, vcpu.kernel_sp = context.kernel_ss, context.kernel_sp


def _set_system_registers(host: Host, current: Current, context: VcpuContext) -> None:
    vcpu, state = current.vcpu, current.state
    state.gdt = (current.dom.windows.gdt_vaddr(vcpu.vcpu_id), GDT_LIMIT)
    host.descriptor_tables.load_ldt(current)
    root = vcpu.root_mfn if vcpu.kernel_mode else vcpu.user_root_mfn
    state.cr3 = root << PAGE_SHIFT
    vcpu.cr0 = CR0_TS if context.task_switched else 0
    state.cr0 = state.cr0 & ~CR0_TS | vcpu.cr0
    vcpu.cr4 = state.cr4 & ~PV_CR4 | context.cr4 & PV_CR4
    state.cr4 = vcpu.cr4
    for number in (0, 1, 2, 3, 6, 7):
        try:
            set_debugreg(current, number, context.debug[number])
        except ValueError:
            continue  # as it was: Xen does not look whether it could


def _set_registers(state: DetachedState, context: VcpuContext) -> None:
    for number, value in enumerate(context.gprs):
        state.set_gpr(number, value)
    state.rip = context.rip
    state.rflags = context.rflags & ~(EFLAGS_IOPL | EFLAGS_VM) | EFLAGS_IF | EFLAGS_FIXED


def _load_segments(current: Current, context: VcpuContext) -> None:
    """All six, as far as they can be loaded; the bases of FS and GS are the context's own."""
    vcpu, state = current.vcpu, current.state
    cs, ss = context.selectors[CS], context.selectors[SS]
    cpl = 1 if vcpu.width.is_64 and vcpu.kernel_mode else cs & 3
    stack, stack_fault = _loaded(lambda: stack_segment(current, ss, cs & 3))
    code, code_fault = _loaded(lambda: code_segment(current, cs))
    vcpu.start_fault = code_fault or stack_fault
    state.set_code_and_stack(cs, code, ss, stack, cpl)
    for register in DATA_SEGMENTS:
        selector = context.selectors[register]
        try:
            base, limit, flags = data_segment(current, selector, 0)
        except SegmentFault:
            base, limit, flags = _NO_SEGMENT  # found out again when it first runs
        state.set_segment(register, selector, base, limit, flags)
    if vcpu.width.is_64:
        _load_bases(current, context)


def _loaded(
    load: Callable[[], tuple[int, int, int]],
) -> tuple[tuple[int, int, int], tuple[int, int] | None]:
    """A segment, or a flat one and the exception that loading it is."""
    try:
        return load(), None
    except SegmentFault as fault:
        return _FLAT, (fault.vector, fault.error_code)


def _load_bases(current: Current, context: VcpuContext) -> None:
    """A base of the context's, where there is one, counts for more than the descriptor's."""
    vcpu, state = current.vcpu, current.state
    selector, base, limit, flags = state.segment(FS)
    state.set_segment(FS, selector, context.fs_base or base, limit, flags)
    selector, base, limit, flags = state.segment(GS)
    user = context.gs_base_user or base
    active, vcpu.gs_base_user = (
        (context.gs_base_kernel, user) if vcpu.kernel_mode else (user, context.gs_base_kernel)
    )
    state.set_segment(GS, selector, active, limit, flags)
