"""A domain and its virtual CPUs: plain data, so that it can be saved, compared and copied.

Nothing here acts. Numbers name other things (frames, ports, domains); no object of the engine, no
socket and no closure is reachable from a Domain, apart from the page-table rules that are built
over the machine's frame table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from hypervisor.abi.layout import layout
from hypervisor.abi.vcpu import Runstate
from hypervisor.abi.width import Width
from hypervisor.abi.xen import VcpuInfo
from hypervisor.domain import trap_state
from hypervisor.domain.symbols import Symbols
from hypervisor.domain.trap_state import Callback, GateTable, TrapState
from hypervisor.machine.calls import CallLog
from hypervisor.mm.hole import DomainWindows
from hypervisor.mm.pagetables import PageTables
from hypervisor.x86.flags import CR0_TS, DR6_DEFAULT, DR7_DEFAULT

VCPU_INFO_BYTES: Final = layout(VcpuInfo, Width.X86_64).size  # the same in all widths
UPCALL_MASK_OFFSET: Final = layout(VcpuInfo, Width.X86_64).offset("evtchn_upcall_mask")
#: Where fields of vcpu_info lie, by the size of the guest's word in bytes.
PENDING_SEL_OFFSET: Final = {
    width.word_bytes: layout(VcpuInfo, width).offset("evtchn_pending_sel") for width in Width
}
CR2_OFFSET: Final = {width.word_bytes: layout(VcpuInfo, width).offset("arch") for width in Width}


class DomainState(Enum):
    """Where a domain is in its life."""

    RUNNING = "running"
    SHUTDOWN = "shutdown"  # it asked for it: see shutdown_reason
    CRASHED = "crashed"  # Xen ended it: see crash_report
    DESTROYED = "destroyed"


class VcpuState(Enum):
    """Whether a virtual CPU can run."""

    RUNNABLE = "runnable"
    BLOCKED = "blocked"  # until an event arrives (SCHEDOP_block)
    POLLING = "polling"  # until one of poll_ports is pending (SCHEDOP_poll)
    DOWN = "down"  # not initialised, or VCPUOP_down


@dataclass(slots=True)
class VcpuStats:
    """Counts of what a virtual CPU did."""

    upcalls: int = 0
    emulated: int = 0  # privileged instructions
    table_writes: int = 0  # stores to page tables, done on its behalf
    switches: int = 0
    wakeups: int = 0  # from waiting for an event


@dataclass(slots=True)
class RunstateAccount:
    """How long a vCPU was in each run-state (events.runstate), ns."""

    state: Runstate = Runstate.OFFLINE
    since_ns: int = 0
    time_ns: list[int] = field(default_factory=lambda: [0, 0, 0, 0])


@dataclass(slots=True)
class Vcpu:
    """One virtual CPU of a domain."""

    domid: int
    vcpu_id: int
    width: Width
    vcpu_info_maddr: int  # struct vcpu_info: in shared_info, or where the guest registered it
    vcpu_info_registered: bool = False
    state: VcpuState = VcpuState.DOWN
    state_when_up: VcpuState = VcpuState.RUNNABLE  # DOWN: what it will be in; events go on
    saved: bytes = b""  # the CPU's state while another one runs; empty before VCPUOP_initialise
    start_fault: tuple[int, int] | None = None  # what its first CS or SS raises: vector, error code
    traps: TrapState = field(default_factory=TrapState)  # what a trap needs: gates, stack, mode
    event_callback: Callback = field(default_factory=Callback)
    failsafe_callback: Callback = field(default_factory=Callback)
    cr0: int = CR0_TS
    cr4: int = 0
    iopl: int = 0  # virtual
    dr6: int = DR6_DEFAULT
    dr7: int = DR7_DEFAULT
    dr: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    gdt_frames: list[int] = field(default_factory=list)
    gdt_entries: int = 0
    ldt_vaddr: int = 0
    ldt_entries: int = 0
    nmi_pending: bool = False  # VCPUOP_send_nmi
    poll_ports: tuple[int, ...] = ()  # POLLING: which port's event ends it; empty: any port's
    iobitmap_vaddr: int = 0  # PHYSDEVOP_set_iobitmap
    iobitmap_ports: int = 0
    periodic_ns: int = 0  # VCPUOP_set_periodic_timer, 0 when off
    periodic_last_ns: int = 0  # its last tick
    time_stamp_ns: int = -1  # the moment it was told last (events.time), -1 none
    runstate: RunstateAccount = field(default_factory=RunstateAccount)
    runstate_vaddr: int = 0  # where the guest wants to read it, 0 nowhere
    time_vaddr: int = 0  # where it wants a second vcpu_time_info
    calls: CallLog = field(default_factory=CallLog)  # hypercalls: how many, the latest
    stats: VcpuStats = field(default_factory=VcpuStats)

    # --- in `traps`, where machine code sees it --------------------------------------------------
    @property
    def gates(self) -> GateTable:
        """The trap table."""
        return GateTable(self.traps)

    @property
    def syscall_callback(self) -> Callback:
        """CALLBACKTYPE_syscall: 64-bit only."""
        return self.traps.callback(trap_state.SYSCALL_GATE)

    @syscall_callback.setter
    def syscall_callback(self, callback: Callback) -> None:
        self.traps.set_gate(trap_state.SYSCALL_GATE, callback)

    @property
    def syscall32_callback(self) -> Callback:
        """CALLBACKTYPE_syscall32."""
        return self.traps.callback(trap_state.SYSCALL32_GATE)

    @syscall32_callback.setter
    def syscall32_callback(self, callback: Callback) -> None:
        self.traps.set_gate(trap_state.SYSCALL32_GATE, callback)

    @property
    def sysenter_callback(self) -> Callback:
        """CALLBACKTYPE_sysenter."""
        return self.traps.callback(trap_state.SYSENTER_GATE)

    @sysenter_callback.setter
    def sysenter_callback(self, callback: Callback) -> None:
        self.traps.set_gate(trap_state.SYSENTER_GATE, callback)

    @property
    def kernel_ss(self) -> int:
        """The stack segment that the kernel is entered on."""
        return self.traps.words[trap_state.KERNEL_SS]

    @kernel_ss.setter
    def kernel_ss(self, selector: int) -> None:
        self.traps.words[trap_state.KERNEL_SS] = selector

    @property
    def kernel_sp(self) -> int:
        """The stack pointer that the kernel is entered with."""
        return self.traps.words[trap_state.KERNEL_SP]

    @kernel_sp.setter
    def kernel_sp(self, vaddr: int) -> None:
        self.traps.words[trap_state.KERNEL_SP] = vaddr

    @property
    def kernel_mode(self) -> bool:
        """64-bit: in the guest's kernel, as Xen keeps track of it."""
        return bool(self.traps.words[trap_state.KERNEL_MODE])

    @kernel_mode.setter
    def kernel_mode(self, value: bool) -> None:
        self.traps.words[trap_state.KERNEL_MODE] = value

    @property
    def root_mfn(self) -> int:
        """The kernel's top-level table."""
        return self.traps.words[trap_state.ROOT_MFN]

    @root_mfn.setter
    def root_mfn(self, mfn: int) -> None:
        self.traps.words[trap_state.ROOT_MFN] = mfn

    @property
    def user_root_mfn(self) -> int:
        """64-bit: the user's, 0 when none."""
        return self.traps.words[trap_state.USER_ROOT_MFN]

    @user_root_mfn.setter
    def user_root_mfn(self, mfn: int) -> None:
        self.traps.words[trap_state.USER_ROOT_MFN] = mfn

    @property
    def gs_base_user(self) -> int:
        """64-bit: the GS base that is not in the CPU."""
        return self.traps.words[trap_state.GS_BASE_USER]

    @gs_base_user.setter
    def gs_base_user(self, base: int) -> None:
        self.traps.words[trap_state.GS_BASE_USER] = base

    @property
    def nmi_masked(self) -> bool:
        """The handler of an NMI runs, until an iret."""
        return bool(self.traps.words[trap_state.NMI_MASKED])

    @nmi_masked.setter
    def nmi_masked(self, value: bool) -> None:
        self.traps.words[trap_state.NMI_MASKED] = value

    @property
    def exceptions(self) -> int:
        """How many exceptions and interrupts were bounced into the guest."""
        return self.traps.words[trap_state.EXCEPTIONS]

    @property
    def is_initialised(self) -> bool:
        """Whether it has registers to run with."""
        return bool(self.saved)

    @property
    def waits_for(self) -> VcpuState:
        """Its state, also while it is down: BLOCKED and POLLING end there as well."""
        return self.state_when_up if self.state is VcpuState.DOWN else self.state

    @property
    def name(self) -> str:
        """As Xen prints it: d1v0."""
        return f"d{self.domid}v{self.vcpu_id}"


@dataclass(slots=True)
class Domain:
    """A guest: its memory, its virtual CPUs and what it was told at start."""

    domid: int
    name: str
    width: Width
    page_tables: PageTables
    windows: DomainWindows
    p2m: list[int]  # as built: mfn by pfn; the guest may change its mind later
    max_frames: int
    shared_info_mfn: int
    vcpus: list[Vcpu]
    privileged: bool = False
    state: DomainState = DomainState.RUNNING
    paused: int = 0  # a count: who pauses, unpauses
    shutdown_reason: int | None = None
    announced_reason: int | None = None  # SCHEDOP_shutdown_code
    handle: bytes = bytes(16)  # its UUID
    crash_report: str | None = None
    vm_assist: int = 0  # bit set of VMASST_TYPE_*
    console_mfn: int = 0
    console_port: int = 0
    store_mfn: int = 0
    store_port: int = 0
    backend_frames: list[int] = field(default_factory=list)  # rings, held writable by the VMM
    hypercall_page: int = 0  # vaddr, 0 when the image asked for none
    symbols: Symbols | None = None  # of its image, for backtraces
    time_offset_s: int = 0  # its wall clock before the machine's
    watchdogs: int = 0  # bit set of those in use (SCHEDOP_watchdog)

    def is_runnable(self, vcpu: Vcpu) -> bool:
        """Whether `vcpu` may be given the CPU now."""
        return (
            vcpu.state is VcpuState.RUNNABLE
            and self.state is DomainState.RUNNING
            and self.paused == 0
        )
