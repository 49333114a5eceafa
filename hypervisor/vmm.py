"""The heart: choose a vCPU, enter it, handle what comes out, and again.

Everything else is in the parts that are put together here: `machine` runs guest code and calls back
at each trap, `traps` and `hypercalls` do the work in that callback on the live state, and this loop
gets control only when the guest is to stop: its slice is over, it blocked, a timer is due, somebody
asked. So a hypercall never comes through here; a switch, a wait and an end always do.

Waiting happens here and nowhere else. When no vCPU can run, virtual time jumps to the next timer;
in host-clock mode the loop sleeps until then.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from hypervisor.control.backends import Backends
from hypervisor.control.create import destroy_domain
from hypervisor.control.held import audit_subject
from hypervisor.control.host import Host
from hypervisor.domain.domain import Domain, DomainState, Vcpu
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.dispatch import Dispatcher
from hypervisor.hypercalls.mmuext import move_to_cr3
from hypervisor.machine.cpu import Cpu, StateAccess, Stop
from hypervisor.machine.memory import MachineMemory
from hypervisor.machine.state import CpuState
from hypervisor.mm.audit_subject import AuditSubject
from hypervisor.mm.guest_memory import GuestMemory
from hypervisor.sched.params import DEFAULT_SETTINGS, SchedParamsError, SchedSettings
from hypervisor.sched.policies import DEFAULT_POLICY, make_scheduler
from hypervisor.traps.crash_report import crash_report
from hypervisor.traps.emulate import Emulator
from hypervisor.traps.entry import TrapEntry

_T = TypeVar("_T")


class RunEnd(Enum):
    """Why `run` came back."""

    PREDICATE = "predicate"  # what was waited for has happened
    ALL_STOPPED = "all stopped"  # every domain has shut down or crashed
    BLOCKED_FOREVER = "blocked for ever"  # nothing can wake any domain, except input
    TIME_LIMIT = "time limit"
    INTERRUPTED = "interrupted"


class Vmm:
    """A machine that runs."""

    def __init__(
        self,
        memory_bytes: int,
        *,
        access: StateAccess = StateAccess.AUTO,
        seed: int = 0,
        ps_per_byte: int = 250,
        host_clock: bool = False,
        native_clock: bool | None = None,
        scheduler: str = DEFAULT_POLICY,
        sched_settings: SchedSettings = DEFAULT_SETTINGS,
        switch_cost_ns: int = 0,
    ) -> None:
        policy = make_scheduler(scheduler, sched_settings)
        _check_switch_cost(switch_cost_ns, policy.least_turn_ns)
        self.memory = MachineMemory(memory_bytes)
        self.cpu = Cpu(
            self.memory,
            access=access,
            ps_per_byte=ps_per_byte,
            host_clock=host_clock,
            native_clock=native_clock,
        )
        self.host = Host(self.memory, self.cpu, policy, seed=seed)
        self.probes = self.host.probes
        current = self.current = self.host.current
        caller = Caller(self.host, current)
        emulator = Emulator(current, self.cpu.clock.now_ns, lambda mfn: move_to_cr3(caller, mfn))
        self.entry = TrapEntry(current, emulator, self.probes)
        self.dispatcher = Dispatcher(caller, self.entry, self.probes)
        self.backends = Backends(self.host)
        self._connect()
        self.consoles: dict[int, Callable[[bytes], None]] = {}
        self.on_end: Callable[[Domain], None] = _nobody_cares
        self.interrupted = False
        self._until: Callable[[], bool] | None = None
        self._turn: Vcpu | None = None  # who was chosen, until its slice is over
        self._turn_ends_ns = 0
        self._look_for_events = True
        self._turn_begins = False
        self._tell_time = False  # to who runs now, if it has not been told this second's moment
        self._switch_cost_ps = switch_cost_ns * 1000
        self._ran_last: int | None = None  # the domain

    def _connect(self) -> None:
        """Fill the slots by which lower layers call upwards."""
        entry, host = self.entry, self.host
        entry.hypercall64 = self.dispatcher.made
        entry.crash = self.crash_current
        entry.now_ps = self.cpu.clock.now_ps
        entry.ldt_fault = lambda vaddr: host.descriptor_tables.ldt_fault(self.current, vaddr)
        host.call_by_number = self.dispatcher.call
        host.shorten_turn = self._shorten_turn
        host.after_iret = self._after_iret
        host.on_crash = lambda dom, vcpu, why: crash_report(self.current, why, host.now_ns)
        host.emergency_write = self._emergency_write
        self.cpu.exits = entry
        self.probes.on_watch = lambda: self.dispatcher.serve(self.cpu)
        self.dispatcher.serve(self.cpu)
        self.backends.console_output = self._console_output

    def crash_current(self, why: str) -> None:
        """End the domain on the CPU."""
        self.host.crash(self.current.dom, self.current.vcpu, why)

    def _after_iret(self) -> None:
        vcpu = self.current.vcpu
        if not vcpu.kernel_mode:
            self.entry.before_user_mode()
        if vcpu.nmi_masked:
            vcpu.nmi_masked = False
            self.current.fast.serve(self.current.dom, vcpu)
            if vcpu.nmi_pending:
                self.cpu.request_stop()  # and with that it is looked at again

    # --- consoles ------------------------------------------------------------------------------
    def _console_output(self, dom: Domain, data: bytes) -> None:
        """A domain wrote to its console: whoever waits for that looks now."""
        if (probe := self.probes.console) is not None:
            probe(dom.domid, data)
        if (listener := self.consoles.get(dom.domid)) is not None:
            listener(data)
        if self._until is not None:
            self.cpu.request_stop()

    def _emergency_write(self, dom: Domain, data: bytes) -> None:
        """console_io: Domain 0's console, and everybody's line in the hypervisor's log."""
        if dom.privileged:
            self.host.log.write(data)
            self._console_output(dom, data)
        else:
            self.host.log.write_lines(dom.domid, data)

    def console_input(self, domid: int, data: bytes) -> None:
        """Somebody typed at a domain's console, which for Domain 0 may be Xen's own."""
        dom = self.host.domains.get(domid)
        if dom is None or not self.host.type_at_xen(dom, data):
            self.backends.console_input(domid, data)
        self._look_for_events = True

    def attach_backends(self, dom: Domain) -> None:
        """Connect a new domain to its console and to xenstore."""
        self.backends.attach(dom)

    def destroy(self, dom: Domain) -> None:
        """End a domain and give all it had back."""
        if self._turn is not None and self._turn.domid == dom.domid:
            self._end_turn()
            self.host.must_pick = True
        self.backends.detach(dom)
        destroy_domain(self.host, dom)
        self.consoles.pop(dom.domid, None)

    # --- the loop ------------------------------------------------------------------------------
    def run(
        self, until: Callable[[], bool] | None = None, time_limit_ns: int | None = None
    ) -> RunEnd:
        """Run until `until` is true, every domain has stopped, or `time_limit_ns` (absolute)."""
        self._until = until
        try:
            return self._run(until, time_limit_ns)
        finally:
            self._until = None

    def _run(self, until: Callable[[], bool] | None, time_limit_ns: int | None) -> RunEnd:
        while True:
            if until is not None and until():
                return RunEnd.PREDICATE
            if self.interrupted:
                self.interrupted = False
                return RunEnd.INTERRUPTED
            vcpu = self._choose()
            if vcpu is None and not self._anyone_left():
                return RunEnd.ALL_STOPPED
            if time_limit_ns is not None and self.host.now_ns >= time_limit_ns:
                return RunEnd.TIME_LIMIT
            if vcpu is None:
                if (end := self._idle(time_limit_ns)) is not None:
                    return end
            elif self._enter(vcpu):
                deadline = self._deadline_ns
                if time_limit_ns is not None:
                    deadline = min(deadline, time_limit_ns)
                self._left(self.cpu.run(deadline * 1000))

    def step(self) -> bool:
        """One instruction of the vCPU that is due, or one exit handled; False if nobody can run."""
        while (vcpu := self._choose()) is None:
            if not self._anyone_left() or self._idle(None) is not None:
                return False
        if self._enter(vcpu):
            self._left(self.cpu.step())
        return True

    def _anyone_left(self) -> bool:
        return any(dom.state is DomainState.RUNNING for dom in self.host.domains.values())

    def _choose(self) -> Vcpu | None:
        """Whose turn it is, after every timer that is due.

        A turn ends by virtual time alone: how often the loop came round in between, because of a
        kick, a breakpoint or a single step, changes nothing that a guest could see.
        """
        host = self.host
        host.fire_due_timers()
        if host.ended:
            self._settle_ends()
        now = host.now_ns
        if host.must_pick or (self._turn is not None and now >= self._turn_ends_ns):
            host.must_pick = False
            self._pick(now)
        return self._turn

    def _pick(self, now: int) -> None:
        chosen = self.host.scheduler.pick(now)
        if chosen is None:
            self._end_turn()
            return
        vcpu, self._turn_ends_ns = chosen[0], now + chosen[1]
        self._tell_time = True
        if vcpu is not self._turn:
            self._end_turn()
            self._turn = vcpu
            self._look_for_events = True
            self._turn_begins = True
            self.host.begin_turn(vcpu)

    def _shorten_turn(self, ends_ns: int) -> None:
        """Somebody has woken, who is to run after whoever runs now, but not as late as thought."""
        self._turn_ends_ns = ends_ns
        self.cpu.bring_forward(ends_ns * 1000)

    def _settle_ends(self) -> None:
        """Let the control side do what is to be done about domains that have ended.

        Here, between two turns of the CPU, a domain may be destroyed and another one made.
        """
        while self.host.ended:
            dom = self.host.domains.get(self.host.ended.popleft())
            if dom is not None and dom.state is not DomainState.RUNNING:
                self.backends.ended(dom)
                self.on_end(dom)

    def _end_turn(self) -> None:
        if self._turn is not None:
            self.host.end_turn(self._turn)
            self._turn = None

    @property
    def _deadline_ns(self) -> int:
        """When something is to happen that the guest may see: its turn ends, or a timer is due."""
        due = self.host.timers.next_deadline()
        return self._turn_ends_ns if due is None else min(self._turn_ends_ns, due)

    def _enter(self, vcpu: Vcpu) -> bool:
        """Put `vcpu` on the CPU, an event delivered if one is due; whether it can go on now."""
        dom = self.host.domain_of(vcpu)
        if self.host.running is not vcpu:
            self._switch(dom, vcpu)
            self._look_for_events = True
            if self._pay_for_switch(vcpu.domid):
                return False  # time has passed: look again what is due
        if self._tell_time:
            self._tell_time = False
            self.host.refresh_time(vcpu)
        if self._turn_begins:
            self._turn_begins = False
            self.host.show_runstate(vcpu)
        if self._look_for_events:
            self._look_for_events = False
            self.entry.deliver_now()
        return dom.state is DomainState.RUNNING

    def _left(self, stop: Stop) -> None:
        """The CPU came back. Events are looked for again where the guest's own course led here.

        Not after a kick or a breakpoint: a guest that has unmasked its events by a plain write is
        told at its next entry, and those are no entries of its own.
        """
        if stop is Stop.REQUESTED or self.host.now_ns >= self._deadline_ns:
            self._look_for_events = True

    def look_for_events(self) -> None:
        """Something came from outside: deliver its event before the guest goes on."""
        self._look_for_events = True

    def _switch(self, dom: Domain, vcpu: Vcpu) -> None:
        host = self.host
        if host.running is not None:
            host.running.saved = self.cpu.state.save()
        self.cpu.state.load(vcpu.saved)
        host.running = vcpu
        host.current.set(dom, vcpu)
        host.flush_tlb()
        self.entry.user_tlb_stale = False
        vcpu.stats.switches += 1
        self.entry.reload_segments()
        if (probe := self.probes.switch) is not None:
            probe(self.cpu.clock.now_ps(), vcpu.domid, vcpu.vcpu_id)

    def _pay_for_switch(self, domid: int) -> bool:
        """Let the time pass that a switch of domains takes on this machine; whether it takes any.

        The domain that comes pays, as it would for the cache that it finds cold.
        """
        before, self._ran_last = self._ran_last, domid
        if not self._switch_cost_ps or before in (None, domid):
            return False
        self.cpu.clock.charge_ps(self._switch_cost_ps)
        return True

    def _idle(self, time_limit_ns: int | None) -> RunEnd | None:
        """Nobody can run: let time pass until a timer is due."""
        due = self.host.timers.next_deadline()
        pick_again_ns = self.host.scheduler.next_event_ns()
        if pick_again_ns is not None and (due is None or pick_again_ns <= due):
            due = pick_again_ns
            self.host.must_pick = True
        if due is None:
            return RunEnd.BLOCKED_FOREVER
        wake = due if time_limit_ns is None else min(due, time_limit_ns)
        self.cpu.clock.advance_to_ps(wake * 1000)
        return None

    def interrupt(self) -> None:
        """Let `run` come back soon; from any thread or signal handler, kept if too early."""
        self.interrupted = True
        self.cpu.kick()

    def due(self) -> Vcpu | None:
        """Whose turn it is; timers that are due have fired."""
        return self._choose()

    @property
    def on_cpu(self) -> Vcpu | None:
        """Whose turn it is, as last decided."""
        return self._turn

    # --- what the machine is ------------------------------------------------------------------
    def digest(self) -> str:
        """SHA-256 over all of memory, every vCPU's state and the time."""
        host = self.host
        if host.running is not None:
            host.running.saved = self.cpu.state.save()
        total = hashlib.sha256(self.memory.view)
        total.update(str(self.cpu.clock.now_ps()).encode())
        for domid, dom in sorted(host.domains.items()):
            for vcpu in dom.vcpus:
                total.update(f"d{domid} {dom.state.value} {vcpu.state.value}".encode())
                if vcpu.saved:
                    total.update(repr(self._architectural(vcpu)).encode())
        return total.hexdigest()

    def _architectural(self, vcpu: Vcpu) -> tuple[object, ...]:
        return self.inspect(vcpu, lambda state: state.architectural())

    def inspect(self, vcpu: Vcpu, look: Callable[[CpuState], _T]) -> _T:
        """What `look` says of the state of `vcpu`, wherever that is kept."""
        if self.host.running is vcpu:
            return look(self.cpu.state)
        state = self.cpu.state
        before = state.save()
        state.load(vcpu.saved)
        try:
            return look(state)
        finally:
            state.load(before)

    def read_memory(self, vcpu: Vcpu, vaddr: int, size: int) -> bytes:
        """Guest memory as `vcpu` sees it. Raises XenError(EFAULT)."""
        cr3 = self.inspect(vcpu, lambda state: state.cr3)
        memory = GuestMemory(self.memory, vcpu.width, lambda: cr3, lambda maddr, n: None)
        return memory.read(vaddr, size)

    def audit_subjects(self) -> list[AuditSubject]:
        """What each domain holds besides what its page tables say."""
        return [audit_subject(self.host, dom) for dom in self.host.domains.values()]

    def bug_report(self, error: BaseException) -> str:
        """All that is known when an exception of our own came out."""
        lines = traceback.format_exception(error)
        if self.host.running is not None:
            lines.append(crash_report(self.current, "the hypervisor failed", self.host.now_ns))
        lines.append(f"{type(error).__name__}: {error}\n")
        return "".join(lines)

    def close(self) -> None:
        """Free the engine."""
        self.cpu.close()


def _nobody_cares(dom: Domain) -> None:
    """A domain that has ended stays as it is."""


def _check_switch_cost(cost_ns: int, least_turn_ns: int) -> None:
    """Raise SchedParamsError if nobody would get anything done."""
    if not 0 <= cost_ns < least_turn_ns:
        raise SchedParamsError(
            f"switch_cost_ns is {cost_ns}: it lies between 0 and {least_turn_ns - 1}, "
            "less than a turn of this scheduler"
        )
