"""Every way out of a guest arrives here: which of them is whose business.

The order of the questions is Xen's (arch/x86/traps.c): can the VMM repair it (a descriptor page not
mapped yet), can it do what the instruction wanted (emulate), and else the guest is told, through
its trap table. After each, an event that is due is delivered.

A 64-bit guest's kernel runs at CPL 1 of the engine with ring 3's selectors (see bounce).
Instructions that check the selector against CPL fail there: those are tried once more at CPL 3.
While the kernel is at CPL 3 it fills the user TLB with its own translations, so that TLB is flushed
before user mode runs again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.abi.arch_x86_32 import FLAT_RING3_SS
from hypervisor.abi.arch_x86_64 import FLAT_USER_SS64
from hypervisor.abi.errors import DomainCrash
from hypervisor.domain.domain import CR2_OFFSET
from hypervisor.domain.trap_state import EXCEPTIONS
from hypervisor.probes import Entry, Probes
from hypervisor.traps import bounce
from hypervisor.traps.current import Current
from hypervisor.traps.emulate import Emulator, set_task_switched
from hypervisor.traps.fast_context import DIRECT_VECTOR
from hypervisor.traps.ports import MemoryFault
from hypervisor.traps.segments import SegmentFault, reload_data_segments
from hypervisor.traps.writable_tables import WritableTables
from hypervisor.x86.descriptor import SEL_TI_LDT
from hypervisor.x86.flags import (
    CR0_TS,
    CS,
    DR6_BS,
    EFLAGS_TF,
    HAS_ERROR_CODE,
    PFEC_PRESENT,
    PFEC_USER,
    R11,
    RCX,
    RSP,
    SS,
    XEC_IDT,
    Vector,
    is_canonical,
)

_PF: Final = int(Vector.PF)
_CHECKED_AGAINST_CPL: Final = frozenset({Vector.NP, Vector.SS, Vector.GP})


class TrapEntry:
    """Handles the exits of the guest on the CPU (implements the machine's Exits)."""

    def __init__(self, current: Current, emulator: Emulator, probes: Probes) -> None:
        self._current = current
        self._emulator = emulator
        self._probes = probes
        self._state = current.state
        self._writable_tables = WritableTables(current)
        self._why = ""
        #: By vector: what comes before telling the guest; whether that was all.
        self._repairs: dict[int, Callable[[int], bool]] = {
            Vector.PF: self._page_fault,
            Vector.GP: self._general_protection,
            Vector.UD: self._undefined_opcode,
            Vector.NM: self._device_not_available,
            Vector.DB: self._debug,
        }
        # filled by the vmm
        self.hypercall64: Callable[[], None] = _unset
        self.crash: Callable[[str], None] = _unset_crash
        self.now_ps: Callable[[], int] = _unset_now
        self.ldt_fault: Callable[[int], int | None] = _no_ldt

    @property
    def user_tlb_stale(self) -> bool:
        """A kernel was at CPL 3 since user mode's TLB was flushed."""
        return self._current.fast.user_tlb_stale

    @user_tlb_stale.setter
    def user_tlb_stale(self, stale: bool) -> None:
        self._current.fast.user_tlb_stale = stale

    # --- exits -------------------------------------------------------------------------------
    def exception(self, vector: int, error_code: int) -> None:
        """A fault or trap of the guest."""
        if self._probes.entry is None:
            self._guarded(self._exception, vector, error_code)
            return
        entry = self._begin("exception", vector, (error_code, self._state.cr2))
        self._guarded(self._exception, vector, error_code)
        self._end(entry)

    def soft_interrupt(self, vector: int) -> None:
        """int n, int3, into; RIP is behind it. Hypercalls do not come this way."""
        if vector == DIRECT_VECTOR and bounce.is_direct(self._current, vector):
            self._direct(vector)
            return
        if self._probes.entry is None:
            self._guarded(self._soft_interrupt, vector, 0)
            return
        entry = self._begin("interrupt", vector, ())
        self._guarded(self._soft_interrupt, vector, 0)
        self._end(entry)

    def syscall(self) -> None:
        """The syscall instruction; RIP is behind it.

        Hypercalls do not come this way but from a kernel found at CPL 3.
        """
        vcpu = self._current.vcpu
        if vcpu.width.is_64 and vcpu.kernel_mode:
            self.settle_cpl()
            self.hypercall64()
            return
        entry = None if self._probes.entry is None else self._begin("syscall", 0, ())
        self._guarded(self._user_syscall, 0, 0)
        if entry is not None:
            self._end(entry)

    def sysenter(self) -> None:
        """The sysenter instruction; RIP is behind it."""
        entry = None if self._probes.entry is None else self._begin("sysenter", 0, ())
        self._guarded(self._sysenter, 0, 0)
        if entry is not None:
            self._end(entry)

    def cpuid(self) -> None:
        """cpuid executed directly: PV guests see the same as by the forced prefix."""
        self._emulator.cpuid()

    def rdtsc(self) -> int:
        """rdtsc(p) where CR4.TSD permits it: nanoseconds of system time."""
        return self.now_ps() // 1000

    def port_allowed(self, code: bytes) -> bool:
        """A port instruction that Xen would emulate: it is left to the CPU, which is the same.

        Linux reads ports 100,000 times while it boots, and leaving the CPU for an emulation costs
        ten times as much. An event that is due has to be looked at right after the instruction, so
        then it takes the long way, and a string instruction always does.
        """
        current = self._current
        if current.upcall_due or not self._emulator.is_allowed_port(code):
            return False
        entry = None
        if self._probes.entry is not None:
            entry = self._begin("exception", Vector.GP, (0, self._state.cr2))
        current.vcpu.stats.emulated += 1
        if entry is not None:
            self._end(entry)
        return True

    def port_in(self, port: int, size: int) -> int:
        """A port read by code that the CPU lets through: nothing answers."""
        return (1 << 8 * size) - 1

    def port_out(self, port: int, size: int, value: int) -> None:
        """A port write by code that the CPU lets through: lost."""

    # --- after the work ------------------------------------------------------------------------
    def deliver_events(self) -> None:
        """Enter the guest's event callback if one is due. May raise DomainCrash."""
        current = self._current
        if current.upcall_due:
            bounce.to_upcall(current)
            if (probe := self._probes.upcall) is not None:
                probe(self.now_ps(), current.vcpu.domid, current.vcpu.vcpu_id)

    def deliver_now(self) -> None:
        """The same from outside an exit, and an NMI before; a domain that cannot be entered is
        crashed."""
        vcpu = self._current.vcpu
        is_nmi_due = vcpu.nmi_pending and not vcpu.nmi_masked
        if not is_nmi_due and not self._current.upcall_due:
            return
        self.settle_cpl()
        try:
            if is_nmi_due:
                self._deliver_nmi()
            self.deliver_events()
        except DomainCrash as crash:
            self.crash(str(crash))

    def _deliver_nmi(self) -> None:
        """Enter the NMI handler; without one the NMI is lost (process_nmi in Xen's entry.S)."""
        vcpu = self._current.vcpu
        vcpu.nmi_pending = False
        gate = vcpu.gates[Vector.NMI]
        if gate.address:
            vcpu.nmi_masked = True
            self._current.fast.serve(self._current.dom, vcpu)
            bounce.to_gate(self._current, gate, None)

    def reload_segments(self) -> None:
        """The vCPU is back on the CPU: its data segments are read again, and may be gone."""
        if self._current.vcpu.start_fault is not None:
            self._raise_start_fault()
        selectors = reload_data_segments(self._current)
        if selectors is None:
            return
        self.settle_cpl()
        try:
            bounce.to_failsafe(self._current, selectors)
        except DomainCrash as crash:
            self.crash(str(crash))

    def _raise_start_fault(self) -> None:
        """A new vCPU's CS or SS cannot be loaded: that faults where it would begin."""
        vcpu = self._current.vcpu
        assert vcpu.start_fault is not None
        vector, error_code = vcpu.start_fault
        vcpu.start_fault = None
        try:
            self.inject(vector, error_code)
        except DomainCrash as crash:
            self.crash(str(crash))

    def settle_cpl(self) -> bool:
        """A 64-bit kernel found at CPL 3 is at CPL 1 again; whether it was."""
        state = self._state
        vcpu = self._current.vcpu
        if vcpu.width.is_64 and vcpu.kernel_mode and state.cpl == 3:
            self.user_tlb_stale = True
            state.set_cpl(1)
            return True
        return False

    def before_user_mode(self) -> None:
        """User mode is about to run: no translation of the kernel's is left in its TLB."""
        if self.user_tlb_stale:
            self.user_tlb_stale = False
            self._current.cpu.flush_tlb_user()

    def _guarded(self, handle: Callable[[int, int], None], vector: int, error_code: int) -> None:
        try:
            handle(vector, error_code)
            self.deliver_events()
        except DomainCrash as crash:
            self._why = str(crash)
            self.crash(self._why)

    # --- exceptions -------------------------------------------------------------------------------
    def _exception(self, vector: int, error_code: int) -> None:
        was_at_cpl3 = self.settle_cpl()
        repair = self._repairs.get(vector)
        if repair is not None and repair(error_code):
            return
        if vector in _CHECKED_AGAINST_CPL and self._retry_at_cpl3(was_at_cpl3):
            return
        self.inject(vector, error_code if vector in HAS_ERROR_CODE else None)

    def _general_protection(self, error_code: int) -> bool:
        return error_code == 0 and self._try_emulate()

    def _undefined_opcode(self, _: int) -> bool:
        if not self._emulator.forced_cpuid():
            return False
        self._after_emulation()
        return True

    def _debug(self, _: int) -> bool:
        """A single step: the guest's DR6 says so, as the CPU's would."""
        self._current.vcpu.dr6 |= DR6_BS
        return False

    def _try_emulate(self) -> bool:
        rip = self._state.rip
        try:
            is_done = self._emulator.privileged()
        except MemoryFault as fault:
            self._state.cr2 = fault.vaddr
            return self._page_fault(fault.error_code)
        if is_done and self._state.rip != rip:
            self._after_emulation()
        return is_done

    def _retry_at_cpl3(self, was_at_cpl3: bool) -> bool:
        vcpu = self._current.vcpu
        if not (vcpu.width.is_64 and vcpu.kernel_mode) or was_at_cpl3:
            return False
        self._state.set_cpl(3)
        self.user_tlb_stale = True
        return True

    def _page_fault(self, error_code: int) -> bool:
        current = self._current
        vaddr = self._state.cr2
        if error_code & PFEC_PRESENT:
            if self._writable_tables.store(vaddr, error_code):
                self._after_emulation()
                return True
        elif not error_code & PFEC_USER:
            in_guest = self.ldt_fault(vaddr)
            if in_guest is None:
                return True
            if in_guest != vaddr and self._is_beyond_canonical(in_guest):
                self.inject(Vector.GP, in_guest - current.vcpu.ldt_vaddr & 0xFFF8 | SEL_TI_LDT)
                return True
            vaddr = in_guest
        size = current.vcpu.width.word_bytes
        at = current.vcpu.vcpu_info_maddr + CR2_OFFSET[size]
        current.view[at : at + size] = (vaddr & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        error_code &= ~PFEC_USER
        if not current.in_kernel:
            error_code |= PFEC_USER
        self.inject(_PF, error_code)
        return True

    def _is_beyond_canonical(self, vaddr: int) -> bool:
        return self._current.vcpu.width.is_64 and not is_canonical(vaddr)

    def _after_emulation(self) -> None:
        """Single-stepping guests are told of each instruction, also of one done for them."""
        if self._state.rflags & EFLAGS_TF:
            self._current.vcpu.dr6 |= DR6_BS
            self.inject(Vector.DB, None)

    def _device_not_available(self, _: int) -> bool:
        """CR0.TS: the guest is told if it had set it; it is clear afterwards either way."""
        wanted = self._current.vcpu.cr0 & CR0_TS
        set_task_switched(self._current, False)
        return not wanted

    def inject(self, vector: int, error_code: int | None) -> None:
        """Enter the guest's handler for `vector`. Raises DomainCrash if there is none."""
        current = self._current
        gate = current.vcpu.gates[vector]
        if gate.address == 0:
            if vector == _PF:
                current.lost_vaddr = self._state.cr2
            name = f"#{Vector(vector).name}" if vector in Vector._value2member_map_ else "interrupt"
            raise DomainCrash(f"Unhandled: vec {vector}, {name}[{error_code or 0:04x}]")
        current.vcpu.traps.words[EXCEPTIONS] += 1
        bounce.to_gate(current, gate, error_code)

    def _direct(self, vector: int) -> None:
        """What is no entry into Xen: neither traced nor followed by a look for events."""
        try:
            bounce.to_direct_gate(self._current, vector)
        except SegmentFault as fault:
            self._state.rip -= 2
            self.exception(fault.vector, fault.error_code)
        except DomainCrash as crash:
            self.crash(str(crash))

    # --- software interrupts and system calls
    # ---------------------------------------------------------
    def _soft_interrupt(self, vector: int, _: int) -> None:
        self.settle_cpl()
        current = self._current
        gate = current.vcpu.gates[vector]
        if vector not in (Vector.BP, Vector.OF):
            needed = current.virtual_cpl
            if gate.dpl < needed or gate.address == 0:
                self._state.rip -= 2
                self.inject(Vector.GP, vector << 3 | XEC_IDT)
                return
        self.inject(vector, None)

    def _user_syscall(self, _: int, __: int) -> None:
        current = self._current
        state = self._state
        vcpu = current.vcpu
        if not vcpu.width.is_64:
            state.rip -= 2
            self.inject(Vector.UD, None)
            return
        is_compat = not state.segment_flags(CS) >> 21 & 1
        callback = vcpu.syscall32_callback if is_compat else vcpu.syscall_callback
        if callback.address == 0:
            state.rip -= 2
            self.inject(Vector.UD if not is_compat else Vector.GP, None if not is_compat else 0)
            return
        state.set_gpr(RCX, state.rip)
        state.set_gpr(R11, current.virtual_eflags(state.rflags))
        bounce.to_gate(current, callback, None)

    def _sysenter(self, _: int, __: int) -> None:
        """The CPU kept no return address, so the frame has none (sysenter_entry in Xen)."""
        self.settle_cpl()
        current = self._current
        state = self._state
        callback = current.vcpu.sysenter_callback
        ss = FLAT_USER_SS64 if current.vcpu.width.is_64 else FLAT_RING3_SS
        if current.in_kernel:
            state.rip -= 2
            self.inject(Vector.GP, 0)
            return
        for register, selector in ((CS, 3), (SS, ss)):
            old = state.segment(register)
            state.set_segment(register, selector, old.base, old.limit, old.flags)
        state.set_cpl(3)
        state.rip = 0
        state.set_gpr(RSP, 0)
        if callback.address == 0:
            self.inject(Vector.GP, 0)
            return
        bounce.to_gate(current, callback, None)

    # --- tracing
    # ------------------------------------------------------------------------------------
    def _begin(self, kind: str, number: int, args: tuple[int, ...]) -> Entry:
        current = self._current
        self._why = ""
        return Entry(
            time_ps=self.now_ps(),
            domid=current.vcpu.domid,
            vcpu_id=current.vcpu.vcpu_id,
            kind=kind,
            rip=self._state.rip,
            number=number,
            args=args,
            result=None,
            why="",
            checksum=self._state.checksum(),
        )

    def _end(self, entry: Entry) -> None:
        entry.why = self._why
        if (probe := self._probes.entry) is not None:
            probe(entry)


def _unset() -> None:
    raise AssertionError("the vmm has not filled this slot")


def _unset_crash(why: str) -> None:
    raise AssertionError(f"the vmm has not filled this slot: {why}")


def _unset_now() -> int:
    raise AssertionError("the vmm has not filled this slot")


def _no_ldt(vaddr: int) -> int:
    return vaddr
