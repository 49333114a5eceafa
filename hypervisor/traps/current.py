"""The guest that is on the CPU, as all code that handles its exits sees it (Xen's `current`)."""

from __future__ import annotations

from copy import copy
from typing import Final

from hypervisor.abi.width import Width
from hypervisor.abi.xen import VmAssistType
from hypervisor.domain.domain import UPCALL_MASK_OFFSET, Domain, Vcpu
from hypervisor.machine.cpu import Cpu
from hypervisor.machine.state import CR3, CpuState
from hypervisor.mm.frames import FrameTable
from hypervisor.mm.guest_memory import GuestMemory
from hypervisor.traps.fast import FastTraps
from hypervisor.traps.ldt_pages import LdtPages
from hypervisor.x86.flags import EFLAGS_IF, EFLAGS_IOPL_SHIFT

VMASST_ARCHITECTURAL_IOPL: Final = 1 << VmAssistType.ARCHITECTURAL_IOPL


class Current:
    """Names the running domain and vCPU; one per machine, refilled at every switch."""

    dom: Domain
    vcpu: Vcpu
    mem: GuestMemory
    lost_vaddr: int | None = None  # what a crash was about, if it was about an address

    def __init__(self, cpu: Cpu, frames: FrameTable) -> None:
        self.cpu = cpu
        self.state = cpu.state
        self.frames = frames
        self.view = frames.memory.view
        self.ldt_pages = LdtPages(frames)
        self.fast = FastTraps(cpu)
        q = cpu.state.q

        def cr3() -> int:
            return q[CR3]

        self._mem_by_width = {
            width: GuestMemory(frames.memory, width, cr3, cpu.code_written) for width in Width
        }

    def set(self, dom: Domain, vcpu: Vcpu) -> None:
        """`vcpu` of `dom` is on the CPU now."""
        self.dom = dom
        self.vcpu = vcpu
        self.lost_vaddr = None
        self.mem = self._mem_by_width[dom.width]
        self.watch_events()

    def away(self, vcpu: Vcpu, state: CpuState) -> Current:
        """Another vCPU of the same domain as if it were on the CPU, with a state that is not.

        For preparing it: its segments can be looked up. Nothing that is done with it runs.
        """
        other = copy(self)
        other.vcpu, other.state = vcpu, state
        return other

    def assist_changed(self) -> None:
        """The domain has other assists now (vm_assist)."""
        self.fast.serve(self.dom, self.vcpu)

    def watch_events(self) -> None:
        """Look for its events, after each hypercall, where its vcpu_info is now.

        `evtchn_upcall_pending` and `evtchn_upcall_mask` are the two bytes (Calls.attend).
        """
        self.cpu.serve_caller(self.vcpu.calls, self.vcpu.vcpu_info_maddr)
        self.fast.serve(self.dom, self.vcpu)

    # --- privilege, as the guest understands it ---------------------------------------
    @property
    def in_kernel(self) -> bool:
        """Whether the guest's kernel runs: ring 1, or for 64 bits the kernel's page tables."""
        if self.vcpu.width.is_64:
            return self.vcpu.kernel_mode
        return self.state.cpl < 2

    @property
    def virtual_cpl(self) -> int:
        """The ring the guest believes to be in (PV kernels: 1, or 0 with architectural IOPL)."""
        if not self.in_kernel:
            return 3
        return 0 if self.dom.vm_assist & VMASST_ARCHITECTURAL_IOPL else 1

    @property
    def iopl_permits(self) -> bool:
        """Whether the virtual IOPL lets the guest use cli, sti and ports."""
        return self.virtual_cpl <= self.vcpu.iopl

    # --- the guest's interrupt flag -----------------------------------------------------
    @property
    def events_masked(self) -> bool:
        """vcpu_info.evtchn_upcall_mask."""
        return bool(self.view[self.vcpu.vcpu_info_maddr + UPCALL_MASK_OFFSET])

    def mask_events(self, masked: bool) -> None:
        """Set evtchn_upcall_mask: the guest's interrupt flag, inverted."""
        self.view[self.vcpu.vcpu_info_maddr + UPCALL_MASK_OFFSET] = masked

    @property
    def upcall_due(self) -> bool:
        """Whether events are pending and the guest will hear of them."""
        at = self.vcpu.vcpu_info_maddr
        return bool(self.view[at]) and not self.view[at + UPCALL_MASK_OFFSET]

    def virtual_eflags(self, eflags: int) -> int:
        """EFLAGS as the guest is shown it: IF is the inverted event mask, IOPL the virtual one."""
        eflags = (eflags & ~EFLAGS_IF) | (0 if self.events_masked else EFLAGS_IF)
        if self.dom.vm_assist & VMASST_ARCHITECTURAL_IOPL:
            eflags |= self.vcpu.iopl << EFLAGS_IOPL_SHIFT
        return eflags
