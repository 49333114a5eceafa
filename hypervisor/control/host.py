"""The machine as the hypervisor's parts share it: memory, domains, events, timers, who can run.

Mechanism only. Every operation here is one that a domain asked for by hypercall, or that the
control side asked for from outside; which of them may ask is decided by the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from hypervisor.abi.errors import XenError
from hypervisor.abi.sched import ShutdownReason
from hypervisor.abi.vcpu import Runstate
from hypervisor.abi.xen import Virq
from hypervisor.control.xen_log import XenLog
from hypervisor.domain.domain import Domain, DomainState, Vcpu, VcpuState
from hypervisor.events.channels import EventChannels
from hypervisor.events.runstate import (
    change_runstate,
    packed,
    runstate_info,
    waiting_runstate,
)
from hypervisor.events.time import stamp_at, update_time, update_wallclock
from hypervisor.events.timers import TimerKey, TimerKind, TimerQueue
from hypervisor.grants.table import GrantTables
from hypervisor.machine.cpu import Cpu
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.frames import FrameTable
from hypervisor.mm.hole import M2P, XenMappings
from hypervisor.mm.tlb import Tlb
from hypervisor.probes import Probes
from hypervisor.sched.params import SchedParams
from hypervisor.sched.protocol import Scheduler
from hypervisor.traps.current import Current
from hypervisor.traps.descriptor_tables import DescriptorTables
from hypervisor.traps.segments import xen_gdt_page
from hypervisor.x86.paging import PAGE_SHIFT, PAGE_SIZE

START_NS: Final = 1_066_521_600 * 10**9  # machines start on 2003-10-19: always the same day
SERIAL_RX_SIZE: Final = 128  # what Xen's console keeps of its input, bytes
IPI_GRACE_NS: Final = 50_000  # how long a vCPU goes on that has interrupted another of its domain
PREEMPTION_NS: Final = 1_000_000  # what a piece of a long hypercall costs its caller: a slice


class Host:
    """One machine and its domains."""

    def __init__(self, memory: MachineMemory, cpu: Cpu, scheduler: Scheduler, *, seed: int) -> None:
        self.memory = memory
        self.cpu = cpu
        self.probes = Probes()
        self.scheduler = scheduler
        self.frames = FrameTable(memory, seed=seed)
        self.tlb = Tlb(cpu, self.frames)
        self.frames.flush_needed = self.tlb.now
        self.m2p = M2P(self.frames)
        self.frames.scrubbed = self._frame_freed
        self.frames.code_frames = cpu.code_frames
        self.frames.code_written = cpu.code_written
        self.mappings = XenMappings(self.frames, self.m2p)
        self.current = Current(cpu, self.frames)
        self.descriptor_tables = DescriptorTables(self.frames, cpu)
        self.events = EventChannels(memory)
        self.events.wake = self.wake
        self.events.interrupted = self.interrupted
        self.events.fifo.written = cpu.code_written
        self.timers = TimerQueue()
        self.grants = GrantTables(self.frames)
        self.domains: dict[int, Domain] = {}
        self.next_domid = 1
        self.running: Vcpu | None = None  # whose state is in the CPU
        self.must_pick = False  # the scheduler is to be asked who runs now
        self.ended: deque[int] = deque()  # domids that the control side has not looked at yet
        self.wallclock_offset_ns = START_NS  # the wall clock at system time 0, since 1970
        self.log = XenLog()
        # filled by the vmm
        self.on_crash: Callable[[Domain, Vcpu, str], str] = _no_report
        self.call_by_number: Callable[[int, tuple[int, ...]], int | None] = _no_call
        self.shorten_turn: Callable[[int], None] = _no_turn  # until when who is picked may go on
        self.after_iret: Callable[[], None] = _nothing
        self.emergency_write: Callable[[Domain, bytes], None] = _no_console
        self.emergency_read: Callable[[Domain, int], bytes] = self._read_typed
        self._typed = bytearray()  # at Xen's console, not read yet
        self._gdt_pages: dict[bool, int] = {}

    # --- time --------------------------------------------------------------------------------
    @property
    def now_ns(self) -> int:
        """System time."""
        return self.cpu.clock.now_ns()

    @property
    def wallclock_ns(self) -> int:
        """The machine's wall clock: nanoseconds since 1970."""
        return self.wallclock_offset_ns + self.now_ns

    def set_wallclock(self, unix_ns: int) -> None:
        """It is `unix_ns` since 1970 now, for every domain (do_settime); system time goes on."""
        self.wallclock_offset_ns = unix_ns - self.now_ns
        for dom in self.domains.values():
            update_wallclock(self.memory, dom, self.wallclock_offset_ns)

    def set_time_offset(self, dom: Domain, seconds: int) -> None:
        """The wall clock of `dom` is that much before the machine's (domain_set_time_offset)."""
        dom.time_offset_s = seconds
        update_wallclock(self.memory, dom, self.wallclock_offset_ns)

    def gdt_page(self, is_64: bool) -> int:
        """Xen's page of the GDT, shared by all domains of a width."""
        if is_64 not in self._gdt_pages:
            (mfn,) = self.frames.allocate_xen(1)
            self.memory.frame(mfn)[:] = xen_gdt_page(is_64)
            self._gdt_pages[is_64] = mfn
        return self._gdt_pages[is_64]

    def gdt_pages(self) -> list[int]:
        """Those made so far."""
        return list(self._gdt_pages.values())

    def _frame_freed(self, mfn: int) -> None:
        """A frame is nobody's: what it held is no code, and it is no domain's pseudo-physical one.

        As in Xen not before: a frame given back keeps its number while it is still mapped.
        """
        self.cpu.code_written(mfn << PAGE_SHIFT, PAGE_SIZE)
        self.m2p.clear(mfn)

    def flush_tlb(self) -> None:
        """Flush the CPU's whole TLB, and open a new flush epoch."""
        self.tlb.now()

    # --- who can run ---------------------------------------------------------------------------
    def domain_of(self, vcpu: Vcpu) -> Domain:
        """The domain that `vcpu` belongs to."""
        return self.domains[vcpu.domid]

    def wake(self, vcpu: Vcpu) -> None:
        """`vcpu` has a reason to run again, which one that is down remembers."""
        waits_for = vcpu.waits_for
        if waits_for is VcpuState.BLOCKED or waits_for is VcpuState.POLLING:
            vcpu.stats.wakeups += 1
            if waits_for is VcpuState.POLLING:
                vcpu.poll_ports = ()
                self.timers.cancel(TimerKey(vcpu.domid, vcpu.vcpu_id, TimerKind.POLL))
            if vcpu.state is VcpuState.DOWN:
                vcpu.state_when_up = VcpuState.RUNNABLE
            else:
                vcpu.state = VcpuState.RUNNABLE
        self._join(vcpu)

    def _join(self, vcpu: Vcpu) -> None:
        """Queue `vcpu` if nothing is in the way (vcpu_wake)."""
        if self.domain_of(vcpu).is_runnable(vcpu):
            now = self.now_ns
            if vcpu.runstate.state >= Runstate.BLOCKED:
                self._change_runstate(vcpu, Runstate.RUNNABLE, now)
            if self.scheduler.wake(vcpu, now):
                left_ns = None if self.must_pick else self.scheduler.goes_on_ns(now)
                if left_ns is None:
                    self._pick_again()
                else:
                    self.shorten_turn(now + left_ns)

    def bring_up(self, vcpu: Vcpu) -> None:
        """`vcpu` exists for the scheduler from now on; what it waited for, it still does."""
        vcpu.state = vcpu.state_when_up
        if vcpu.state is not VcpuState.RUNNABLE and vcpu.runstate.state is Runstate.OFFLINE:
            self._change_runstate(vcpu, Runstate.BLOCKED, self.now_ns)
        self._join(vcpu)

    def take_down(self, vcpu: Vcpu) -> None:
        """`vcpu` does not run until it is brought up again (VCPUOP_down)."""
        if vcpu.state is not VcpuState.DOWN:
            vcpu.state_when_up = vcpu.state
            self.block(vcpu, VcpuState.DOWN)

    def interrupted(self, vcpu: Vcpu) -> None:
        """An IPI is for `vcpu`: its sender, if another, soon gives way to it.

        Whoever interrupts a processor often waits until that has answered, and there is but one
        engine to do it. Not at once: a kernel sends IPIs with locks held, which the other would
        spin for.
        """
        sender = self.running
        if sender is not None and sender is not vcpu and sender.domid == vcpu.domid:
            key = TimerKey(sender.domid, sender.vcpu_id, TimerKind.GIVE_WAY)
            if self.timers.deadline(key) is None:
                self.set_timer(key, self.now_ns + IPI_GRACE_NS)

    def send_nmi(self, vcpu: Vcpu) -> None:
        """`vcpu` enters its NMI handler when it next enters the guest."""
        vcpu.nmi_pending = True
        self.wake(vcpu)
        if vcpu is self.running:
            self.cpu.request_stop()

    def block(self, vcpu: Vcpu, state: VcpuState) -> None:
        """`vcpu` waits, as `state` says for what."""
        vcpu.state = state
        self._leave(vcpu)

    def yield_cpu(self, vcpu: Vcpu) -> None:
        """`vcpu` gives the rest of its slice away."""
        if self.scheduler.yield_(vcpu, self.now_ns):
            self._pick_again()

    def preempt(self, vcpu: Vcpu) -> None:
        """`vcpu` is in the middle of something long: others first.

        It costs virtual time, or else a guest could make the machine work for ever at one moment.
        """
        self.cpu.clock.charge_ps(PREEMPTION_NS * 1000)
        self.yield_cpu(vcpu)

    def _leave(self, vcpu: Vcpu) -> None:
        now = self.now_ns
        if self.scheduler.sleep(vcpu, now):
            self._pick_again()
        if vcpu.runstate.state is not Runstate.RUNNING:  # else when its turn ends
            self._change_runstate(vcpu, waiting_runstate(self.domain_of(vcpu), vcpu), now)

    def _pick_again(self) -> None:
        """Whoever runs stops where it is, and the scheduler is asked."""
        self.must_pick = True
        self.cpu.request_stop()

    def set_sched_params(self, dom: Domain, params: SchedParams) -> None:
        """What `dom` is promised from now on; it may be running."""
        if self.scheduler.adjust(dom.domid, params, self.now_ns):
            self._pick_again()

    def sched_params(self, dom: Domain) -> SchedParams:
        """What `dom` is promised."""
        return self.scheduler.params(dom.domid)

    # --- life ------------------------------------------------------------------------------------
    def pause(self, dom: Domain) -> None:
        """`dom` does not run until unpaused as often as it was paused."""
        dom.paused += 1
        for vcpu in dom.vcpus:
            self._leave(vcpu)

    def unpause(self, dom: Domain) -> None:
        """Take one pause back."""
        dom.paused = max(0, dom.paused - 1)
        for vcpu in dom.vcpus:
            self._join(vcpu)

    def shutdown(self, dom: Domain, reason: int) -> None:
        """`dom` is over by its own wish (SCHEDOP_shutdown); its memory stays for inspection.

        A reason announced before counts (SCHEDOP_shutdown_code), and a domain ends once.
        """
        if dom.state is not DomainState.RUNNING:
            return
        dom.shutdown_reason = reason if dom.announced_reason is None else dom.announced_reason
        self._over(dom, DomainState.SHUTDOWN)

    def crash(self, dom: Domain, vcpu: Vcpu, why: str) -> None:
        """End `dom` for something it did, with a report; nobody else notices."""
        if dom.state is not DomainState.RUNNING:
            return
        dom.crash_report = self.on_crash(dom, vcpu, why)
        self.log.write(dom.crash_report.encode())
        self._over(dom, DomainState.CRASHED)

    def _over(self, dom: Domain, state: DomainState) -> None:
        """`dom` has ended; Domain 0 is told, and the control side at the loop's next turn."""
        dom.state = state
        if dom.shutdown_reason != ShutdownReason.SUSPEND:
            self.timers.cancel_domain(dom.domid)
        self._stop(dom)
        self.send_global_virq(Virq.DOM_EXC, besides=dom)
        self.ended.append(dom.domid)
        self.cpu.request_stop()  # also when it was ended by another, which is on the CPU

    def resume(self, dom: Domain) -> None:
        """`dom`, which has shut down, goes on behind its call (domain_resume)."""
        dom.state = DomainState.RUNNING
        dom.shutdown_reason = dom.announced_reason = None
        for vcpu in dom.vcpus:
            self._join(vcpu)

    def send_global_virq(self, virq: Virq, besides: Domain) -> None:
        """Tell Domain 0 something about the machine (send_global_virq)."""
        for dom in self.domains.values():
            if dom.privileged and dom is not besides:
                self.events.raise_virq(dom, virq, 0)
                return

    def send_debug_virq(self, dom: Domain) -> None:
        """Ask each vCPU of `dom` what it does; Xen does so when `q` is typed (dump_domains)."""
        for vcpu in dom.vcpus:
            self.events.raise_virq(dom, Virq.DEBUG, vcpu.vcpu_id)

    def type_at_xen(self, dom: Domain, data: bytes) -> bool:
        """Domain 0 is told of input at Xen's own console, if it listens there (serial_rx).

        What it does not read in time is lost.
        """
        if not dom.privileged or not self.events.virq_port(dom, Virq.CONSOLE, 0):
            return False
        self._typed += data[: SERIAL_RX_SIZE - len(self._typed)]
        self.events.raise_virq(dom, Virq.CONSOLE, 0)
        return True

    def _read_typed(self, dom: Domain, size: int) -> bytes:
        data = bytes(self._typed[:size])
        del self._typed[:size]
        return data

    def _stop(self, dom: Domain) -> None:
        for vcpu in dom.vcpus:
            self._leave(vcpu)

    def forget(self, dom: Domain) -> None:
        """Nothing of `dom` runs, waits or is connected any more."""
        self.timers.cancel_domain(dom.domid)
        self._stop(dom)
        self.scheduler.remove_domain(dom.domid, self.now_ns)
        if self.running is not None and self.running.domid == dom.domid:
            self.running = None
        while dom.domid in self.ended:
            self.ended.remove(dom.domid)
        self.events.remove_domain(dom.domid)
        self.log.forget(dom.domid)

    # --- timers
    # ------------------------------------------------------------------------------------
    def set_timer(self, key: TimerKey, deadline_ns: int) -> None:
        """Set a timer; the running guest is stopped in time for it."""
        self.timers.set(key, deadline_ns)
        self.cpu.request_stop()

    def fire_due_timers(self) -> None:
        """Let every timer that is due do its work."""
        now = self.now_ns
        while (fired := self.timers.pop_due(now)) is not None:
            _, key = fired
            dom = self.domains[key.domid]
            match key.kind:
                case TimerKind.POLL:
                    self.wake(dom.vcpus[key.vcpu_id])
                case TimerKind.GIVE_WAY:
                    if dom.vcpus[key.vcpu_id] is self.running:
                        self.yield_cpu(self.running)
                case TimerKind.PERIODIC:
                    self._periodic_work(dom.vcpus[key.vcpu_id])
                case TimerKind.SINGLESHOT:
                    self.events.raise_virq(dom, Virq.TIMER, key.vcpu_id)
                case TimerKind.WATCHDOG if dom.state is DomainState.RUNNING:
                    self.log.write(b"(XEN) Watchdog timer fired for domain %d\n" % dom.domid)
                    self.shutdown(dom, ShutdownReason.WATCHDOG)
                case TimerKind.START:
                    self.unpause(dom)

    def set_period(self, vcpu: Vcpu, period_ns: int) -> None:
        """Let VIRQ_TIMER come every `period_ns` while `vcpu` runs; 0: not at all.

        The period counts from the last tick there was, so the first may come at once.
        """
        self.timers.cancel(_periodic(vcpu))
        vcpu.periodic_ns = period_ns
        if vcpu is self.running:
            self._periodic_work(vcpu)
            self.cpu.request_stop()

    def begin_turn(self, vcpu: Vcpu) -> None:
        """`vcpu` is about to run, and its periodic timer with it; ticks it missed are one now."""
        self._change_runstate(vcpu, Runstate.RUNNING, self.now_ns)
        self._periodic_work(vcpu)

    def end_turn(self, vcpu: Vcpu) -> None:
        """`vcpu` lost or left the CPU: its periodic timer wakes nobody (Xen's sched_switch)."""
        state = waiting_runstate(self.domain_of(vcpu), vcpu)
        self._change_runstate(vcpu, state, self.now_ns)
        if vcpu.periodic_ns:
            self.timers.cancel(_periodic(vcpu))

    def _periodic_work(self, vcpu: Vcpu) -> None:
        """Tick if it is time, and set the timer for the next tick (vcpu_periodic_timer_work)."""
        if not vcpu.periodic_ns:
            return
        now = self.now_ns
        if now >= vcpu.periodic_last_ns + vcpu.periodic_ns:
            vcpu.periodic_last_ns = now
            self.events.raise_virq(self.domain_of(vcpu), Virq.TIMER, vcpu.vcpu_id)
        self.timers.set(_periodic(vcpu), vcpu.periodic_last_ns + vcpu.periodic_ns)

    def _change_runstate(self, vcpu: Vcpu, state: Runstate, now: int) -> None:
        change_runstate(vcpu, state, now)
        if (probe := self.probes.runstate) is not None:
            probe(now, vcpu.domid, vcpu.vcpu_id, state)

    def refresh_time(self, vcpu: Vcpu) -> None:
        """Tell `vcpu`, which comes to run, the time, unless it knows as much already."""
        if vcpu.time_stamp_ns != stamp_at(self.now_ns):
            self.force_time(vcpu)

    def force_time(self, vcpu: Vcpu) -> None:
        """Tell `vcpu`, which is on the CPU, the time, in both its places."""
        info = update_time(self.memory, vcpu, stamp_at(self.now_ns))
        self._write_area(vcpu.time_vaddr, info)

    def show_runstate(self, vcpu: Vcpu) -> None:
        """Bring the run-state area of `vcpu`, which is on the CPU, up to date."""
        if vcpu.runstate_vaddr:
            self._write_area(vcpu.runstate_vaddr, packed(runstate_info(vcpu), vcpu.width))

    def _write_area(self, vaddr: int, data: bytes) -> None:
        """What the guest has unmapped meanwhile it does not get."""
        if vaddr:
            with suppress(XenError):
                self.current.mem.write(vaddr, data)


def _periodic(vcpu: Vcpu) -> TimerKey:
    return TimerKey(vcpu.domid, vcpu.vcpu_id, TimerKind.PERIODIC)


def _nothing() -> None:
    """Nobody needs to know."""


def _no_turn(ends_ns: int) -> None:
    """Nobody runs."""


def _no_call(number: int, args: tuple[int, ...]) -> int | None:
    raise AssertionError("no dispatcher is connected")


def _no_console(dom: Domain, data: bytes) -> None:
    """What nobody listens to is lost."""


def _no_report(dom: Domain, vcpu: Vcpu, why: str) -> str:
    return why
