"""What Python users import: a machine, its domains, and how to run, look and talk to them.

    with Machine(memory_mib=80) as machine:
        dom = machine.create(kernel_bytes, name="grub", memory_mib=64)
        machine.run(until=lambda: b"grub>" in dom.console.output)

Handles stay valid after their domain has ended; they then show how it ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self

from hypervisor.abi.errors import XenError
from hypervisor.abi.sched import ShutdownReason
from hypervisor.abi.vcpu import Runstate
from hypervisor.abi.width import Width
from hypervisor.backends.console import LIMIT_BYTES
from hypervisor.control import lifecycle
from hypervisor.control.create import DomainParams, create_domain
from hypervisor.control.lifecycle import Action, LifeCycleError, Policies, action_for
from hypervisor.domain.builder import BuildError
from hypervisor.domain.domain import Domain, DomainState, Vcpu, VcpuState
from hypervisor.domain.image import ImageError, load_image
from hypervisor.events.runstate import runstate_info_now
from hypervisor.machine.cpu import StateAccess
from hypervisor.mm.audit_subject import AuditError
from hypervisor.probes import Entry
from hypervisor.sched.params import (
    DEFAULT_CTX_ALLOW_NS,
    DEFAULT_MCU_NS,
    DEFAULT_PARAMS,
    SchedParams,
    SchedParamsError,
    SchedSettings,
)
from hypervisor.sched.policies import DEFAULT_POLICY
from hypervisor.sched.protocol import SchedStats
from hypervisor.vmm import RunEnd, Vmm
from hypervisor.x86.flags import CS, DS, ES, FS, GPR_NAMES, GS, SS

if TYPE_CHECKING:
    from hypervisor.debug.frame_uses import FrameView
    from hypervisor.debug.inspection import Inspection, P2mRow, WalkView

__all__ = [
    "Action",
    "AuditError",
    "BuildError",
    "ConsoleHandle",
    "DomainHandle",
    "DomainState",
    "Entry",
    "ImageError",
    "LifeCycleError",
    "Machine",
    "Policies",
    "RunEnd",
    "Runstate",
    "SchedParams",
    "SchedParamsError",
    "ShutdownReason",
    "StateAccess",
    "VcpuHandle",
    "VcpuState",
    "VmmBug",
    "Width",
]

DEFAULT_MEMORY_MIB: Final = 256
AUDIT_EVERY: Final = 256  # entries: an audit of 64 MiB takes as long as some hundred


class VmmBug(Exception):
    """An exception of the hypervisor's own: nothing a guest does may cause one.

    `report` is all that is known, as text: the traceback and the vCPU's state.
    """

    def __init__(self, report: str) -> None:
        super().__init__(report.strip().splitlines()[-1])
        self.report = report


class ConsoleHandle:
    """A domain's console."""

    def __init__(self, vmm: Vmm, dom: Domain) -> None:
        self._vmm = vmm
        self._domid = dom.domid
        self.output = bytearray()  # the newest: LIMIT_BYTES at least, all of it if there are fewer
        self._listeners: list[Callable[[bytes], None]] = []
        vmm.consoles[dom.domid] = self._received

    def _received(self, data: bytes) -> None:
        self.output += data
        if len(self.output) > 2 * LIMIT_BYTES:
            del self.output[:-LIMIT_BYTES]
        for listener in self._listeners:
            listener(data)

    def on_output(self, listener: Callable[[bytes], None]) -> None:
        """Call `listener` with each piece of output, in order, from inside the guest's run.

        A domain that is restarted goes on with the same listeners.
        """
        self._listeners.append(listener)

    def inherit(self, before: ConsoleHandle) -> None:
        """Who listened to `before` listens here."""
        self._listeners = before._listeners

    def send(self, data: bytes) -> None:
        """Type `data`; what the guest's ring cannot hold yet waits."""
        self._vmm.console_input(self._domid, data)


class VcpuHandle:
    """A virtual CPU, to be looked at while the machine stands still."""

    def __init__(self, vmm: Vmm, domain: DomainHandle, vcpu: Vcpu) -> None:
        self._vmm = vmm
        self._vcpu = vcpu
        self.domain = domain

    @property
    def vcpu_id(self) -> int:
        """Its number in its domain."""
        return self._vcpu.vcpu_id

    @property
    def rip(self) -> int:
        """Where it is."""
        return self._vmm.inspect(self._vcpu, lambda state: state.rip)

    @property
    def cpl(self) -> int:
        """The real ring it is in."""
        return self._vmm.inspect(self._vcpu, lambda state: state.cpl)

    @property
    def bits(self) -> int:
        """The size of its code: 16, 32 or 64."""
        flags = self._vmm.inspect(self._vcpu, lambda state: state.segment(CS).flags)
        return 64 if flags >> 21 & 1 else 32 if flags >> 22 & 1 else 16

    def registers(self) -> dict[str, int]:
        """Its registers by the names of its width, in the order in which people read them."""
        is_64 = self._vcpu.width.is_64
        values = self._vmm.inspect(self._vcpu, lambda state: [state.gpr(n) for n in range(16)])
        order = (0, 3, 1, 2, 6, 7, 5, 4)
        if is_64:
            named = {GPR_NAMES[n]: values[n] for n in (*order, *range(8, 16))}
        else:
            named = {"e" + GPR_NAMES[n][1:]: values[n] & 0xFFFF_FFFF for n in order}
        rip, flags, cr2, cr3 = self._vmm.inspect(
            self._vcpu, lambda state: (state.rip, state.rflags, state.cr2, state.cr3)
        )
        named |= {"rip" if is_64 else "eip": rip, "rflags" if is_64 else "eflags": flags}
        for name, register in (("cs", CS), ("ss", SS), ("ds", DS), ("es", ES), ("fs", FS)):
            named[name] = self._selector(register)
        return named | {"gs": self._selector(GS), "cr2": cr2, "cr3": cr3}

    def _selector(self, register: int) -> int:
        return self._vmm.inspect(self._vcpu, lambda state: state.segment(register).selector)

    def read(self, vaddr: int, size: int) -> bytes:
        """Its memory at `vaddr`. Raises LookupError if that is not mapped."""
        try:
            return self._vmm.read_memory(self._vcpu, vaddr, size)
        except XenError as refusal:
            raise LookupError(refusal.why) from None


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What a domain was made from, to make it again."""

    kernel: bytes
    width: Width | None
    params: DomainParams
    policies: Policies


class DomainHandle:
    """A domain as its owner sees it."""

    def __init__(self, machine: Machine, dom: Domain, recipe: _Recipe) -> None:
        self._machine = machine
        self._dom = dom
        self._recipe = recipe
        self.successor: DomainHandle | None = None  # what it was restarted as
        self.console = ConsoleHandle(machine.vmm, dom)

    def __repr__(self) -> str:
        return f"<domain {self.domid} {self.name!r} {self.width.value} {self.state.value}>"

    @property
    def domid(self) -> int:
        """Its number."""
        return self._dom.domid

    @property
    def name(self) -> str:
        """Its name."""
        return self._dom.name

    @property
    def width(self) -> Width:
        """Its ABI."""
        return self._dom.width

    @property
    def state(self) -> DomainState:
        """Where it is in its life."""
        return self._dom.state

    @property
    def is_blocked(self) -> bool:
        """Whether it lives and none of its vCPUs can run."""
        dom = self._dom
        return dom.state is DomainState.RUNNING and not any(
            dom.is_runnable(vcpu) for vcpu in dom.vcpus
        )

    @property
    def shutdown_reason(self) -> int | None:
        """The SHUTDOWN_* it gave, None while it runs."""
        return self._dom.shutdown_reason

    @property
    def crash_report(self) -> str | None:
        """What Xen says of its end, None unless it crashed."""
        return self._dom.crash_report

    @property
    def vcpus(self) -> list[VcpuHandle]:
        """Its virtual CPUs."""
        return [VcpuHandle(self._machine.vmm, self, vcpu) for vcpu in self._dom.vcpus]

    @property
    def cpu_time_ns(self) -> int:
        """For how long its vCPUs have been on a CPU: its virtual time."""
        now_ns = self._machine.now_ns
        states = (runstate_info_now(vcpu, now_ns) for vcpu in self._dom.vcpus)
        return sum(info.time[Runstate.RUNNING] for info in states)

    @property
    def runstate(self) -> Runstate:
        """The most awake of its vCPUs' states."""
        return min(vcpu.runstate.state for vcpu in self._dom.vcpus)

    @property
    def stats(self) -> dict[str, int]:
        """Counts over all vCPUs: hypercalls, exceptions, upcalls, emulated, switches, wakeups..."""
        total: dict[str, int] = {}
        for vcpu in self._dom.vcpus:
            counts = {
                "hypercalls": vcpu.calls.count,
                "exceptions": vcpu.exceptions,
                **asdict(vcpu.stats),
            }
            for name, count in counts.items():
                total[name] = total.get(name, 0) + count
        return total

    @property
    def sched(self) -> SchedParams:
        """What the scheduler promises it; `set_sched` changes it. Raises LifeCycleError."""
        lifecycle.require_existing(self._dom)
        return self._machine.vmm.host.sched_params(self._dom)

    @property
    def sched_stats(self) -> SchedStats:
        """What it got and how often: CPU time, turns, preemptions, warps; 0 once destroyed."""
        if self.state is DomainState.DESTROYED:
            return SchedStats()
        scheduler = self._machine.vmm.host.scheduler
        scheduler.charge(self._machine.now_ns)
        return replace(scheduler.stats(self.domid))

    def set_sched(self, params: SchedParams) -> None:
        """Promise it something else from now on, running or not. Raises LifeCycleError."""
        lifecycle.require_existing(self._dom)
        self._machine.vmm.host.set_sched_params(self._dom, params)

    def inspect(self) -> Inspection:
        """Its walks, frames, tables and P2M, to be looked at while the machine stands still.

        Raises LookupError once it is destroyed: its frames belong to others then.
        """
        from hypervisor.debug.inspection import Inspection  # numpy takes a tenth of a second

        if self.state is DomainState.DESTROYED:
            raise LookupError(f"d{self.domid} is destroyed: it has no frames")
        return Inspection(self._machine.vmm.host, self._dom)

    def walk(self, vaddr: int, *, user: bool = False) -> WalkView:
        """How `vaddr` is translated. Raises ValueError for what is no address."""
        return self.inspect().walk(vaddr, user=user)

    def frames(self) -> list[FrameView]:
        """Every frame it owns."""
        return self.inspect().frames()

    def p2m(self) -> list[P2mRow]:
        """Its frames by pseudo-physical number, beside what the machine says of each."""
        return self.inspect().p2m()

    # --- its life: each raises LifeCycleError where it is over, or not what it would have to be ---
    def pause(self) -> None:
        """Stop it until unpaused as often."""
        lifecycle.require_existing(self._dom)
        self._machine.vmm.host.pause(self._dom)

    def unpause(self) -> None:
        """Let it go on."""
        lifecycle.require_existing(self._dom)
        self._machine.vmm.host.unpause(self._dom)

    def send_debug_virq(self) -> None:
        """Raise VIRQ_DEBUG on each of its vCPUs: kernels then print what they are doing."""
        lifecycle.require_existing(self._dom)
        self._machine.vmm.host.send_debug_virq(self._dom)

    def shutdown(self, reason: int = ShutdownReason.POWEROFF) -> None:
        """End it now, without asking it, as if it had given `reason`; its memory stays."""
        lifecycle.require(self._dom, DomainState.RUNNING)
        self._machine.vmm.host.shutdown(self._dom, reason)

    def crash(self, why: str = "is ended by the control side") -> None:
        """End it now with a crash report."""
        lifecycle.crash(self._machine.vmm.host, self._dom, why)

    def resume(self, *, cancelled: bool = False) -> None:
        """Let it go on in place, if it has shut down to be suspended or otherwise.

        Its call returns 1 if the suspension was `cancelled`, else 0.
        """
        lifecycle.resume(self._machine.vmm.host, self._dom, cancelled=cancelled)

    def restart(self) -> DomainHandle:
        """End it, and make a new domain from the same parameters; that one's handle.

        Raises BuildError, this one being destroyed, when there is no longer room.
        """
        lifecycle.require_existing(self._dom)
        return self._machine.restart(self)

    def destroy(self) -> None:
        """End it now, and give all it had back to the machine; nothing happens the second time."""
        self._machine.forget(self)

    def rename(self, name: str) -> None:
        """Call it `name`, in xenstore too."""
        lifecycle.require_existing(self._dom)
        if not name or not name.isprintable():
            raise LifeCycleError(f"a domain cannot be called {name!r}")
        self._machine.vmm.backends.rename(self._dom, name)

    def set_max_memory(self, memory_mib: int) -> None:
        """Let it have `memory_mib` at most; what it has beyond, it keeps."""
        lifecycle.set_max_memory(self._dom, memory_mib)

    def set_time_offset(self, seconds: int) -> None:
        """Put its wall clock that much before the machine's."""
        lifecycle.require_existing(self._dom)
        self._machine.vmm.host.set_time_offset(self._dom, seconds)


class Machine:
    """A machine with its hypervisor, ready for domains.

    With `audit` every count of every frame is recomputed after each run, and during one at every
    AUDIT_EVERY-th entry into the hypervisor.
    """

    always_audit: ClassVar[bool] = False  # for whoever tests

    def __init__(
        self,
        *,
        memory_mib: int = DEFAULT_MEMORY_MIB,
        access: StateAccess = StateAccess.AUTO,
        clock: Literal["virtual", "host"] = "virtual",
        seed: int = 0,
        ps_per_byte: int = 250,
        audit: bool = False,
        native_clock: bool | None = None,
        scheduler: str = DEFAULT_POLICY,
        ctx_allow_us: int = DEFAULT_CTX_ALLOW_NS // 1000,
        mcu_us: int = DEFAULT_MCU_NS // 1000,
        switch_cost_ns: int = 0,
    ) -> None:
        self._constants: dict[str, int | str] = {
            "memory_mib": memory_mib,
            "clock": clock,
            "seed": seed,
            "ps_per_byte": ps_per_byte,
            "scheduler": scheduler,
            "ctx_allow_us": ctx_allow_us,
            "mcu_us": mcu_us,
            "switch_cost_ns": switch_cost_ns,
        }
        self.vmm = Vmm(
            memory_mib << 20,
            access=access,
            seed=seed,
            ps_per_byte=ps_per_byte,
            host_clock=clock == "host",
            native_clock=native_clock,
            scheduler=scheduler,
            sched_settings=SchedSettings(ctx_allow_us * 1000, mcu_us * 1000),
            switch_cost_ns=switch_cost_ns,
        )
        self.audits = audit or self.always_audit
        self.vmm.on_end = self._ended
        self.domains: dict[int, DomainHandle] = {}  # those that are there
        self.on_restart: list[Callable[[DomainHandle, DomainHandle], None]] = []  # old, new
        self.on_end: list[Callable[[DomainHandle], None]] = []  # before its policy is carried out
        self._on_runstate: list[Callable[[int, int, int, Runstate], None]] = []
        self.on_entry: list[Callable[[Entry], None]] = []
        if audit:
            unaudited = itertools.count(1)
            self.on_entry.append(lambda _: None if next(unaudited) % AUDIT_EVERY else self.audit())
        self._told = self._entered  # one object, so that it is seen to be the same

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._check()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the engine and the memory."""
        self.vmm.close()

    def constants(self) -> dict[str, int | str]:
        """What has to be the same for a run to be the same."""
        return dict(self._constants)

    @property
    def stats(self) -> dict[str, int]:
        """Counts since the machine began: flushes of the whole TLB, of single pages, of what user
        mode has used; runs of the engine, single steps."""
        stats = self.vmm.cpu.stats
        return {name: getattr(stats, name) for name in stats.__slots__}

    # --- domains -------------------------------------------------------------------------------
    def create(
        self,
        kernel: bytes | Path,
        *,
        name: str | None = None,
        memory_mib: int = 64,
        cmdline: str = "",
        ramdisk: bytes | None = None,
        width: Width | None = None,
        privileged: bool = False,
        nr_vcpus: int = 1,
        sched: SchedParams = DEFAULT_PARAMS,
        start_ns: int = 0,
        policies: Policies = Policies(),  # noqa: B008 - it cannot be changed
    ) -> DomainHandle:
        """A new domain with `kernel` in it, running as soon as the machine runs and its time is
        `start_ns`. What becomes of it when it ends is said by `policies`.

        Raises ImageError or BuildError, each with a sentence, if it cannot be.
        """
        data = kernel.read_bytes() if isinstance(kernel, Path) else kernel
        if name is None:
            name = kernel.stem if isinstance(kernel, Path) else f"dom{self.vmm.host.next_domid}"
        params = DomainParams(name, memory_mib, cmdline, ramdisk, privileged, nr_vcpus, sched)
        handle = self._create(_Recipe(data, width, params, policies))
        if start_ns > self.now_ns:
            lifecycle.start_at(self.vmm.host, handle._dom, start_ns)
        else:
            self.vmm.host.unpause(handle._dom)
        self._check()
        return handle

    def _create(self, recipe: _Recipe) -> DomainHandle:
        """A new domain, paused once. Raises ImageError and BuildError."""
        image = load_image(recipe.kernel, width=recipe.width)
        dom = create_domain(self.vmm.host, image, recipe.params)
        handle = DomainHandle(self, dom, recipe)
        self.domains[dom.domid] = handle
        self.vmm.attach_backends(dom)
        return handle

    def restart(self, old: DomainHandle) -> DomainHandle:
        """See DomainHandle.restart. The new one has the name that the old one has now."""
        self.forget(old)
        recipe = replace(old._recipe, params=replace(old._recipe.params, name=old.name))
        new = self._create(recipe)
        new.console.inherit(old.console)
        old.successor = new
        self.vmm.host.unpause(new._dom)
        for listener in self.on_restart:
            listener(old, new)
        return new

    def forget(self, handle: DomainHandle) -> None:
        """See DomainHandle.destroy. The handle stays good for looking back."""
        self.vmm.destroy(handle._dom)
        self.domains.pop(handle.domid, None)

    def _ended(self, dom: Domain) -> None:
        """Do what a domain's policies say of its end; called between two turns of the CPU."""
        handle = self.domains.get(dom.domid)
        if handle is None:
            return  # not made by this API
        for listener in self.on_end:
            listener(handle)
        match action_for(dom, handle._recipe.policies):
            case Action.DESTROY:
                handle.destroy()
            case Action.RESTART:
                try:
                    handle.restart()
                except BuildError as error:
                    self.vmm.host.log.write(f"d{dom.domid} is not restarted: {error}\n".encode())
            case Action.PRESERVE:
                pass

    # --- time ------------------------------------------------------------------------------------
    @property
    def wallclock_ns(self) -> int:
        """The wall clock that domains without an offset see: nanoseconds since 1970."""
        return self.vmm.host.wallclock_ns

    def set_wallclock(self, unix_ns: int) -> None:
        """Set the wall clock of all domains; their system times go on as they were."""
        self.vmm.host.set_wallclock(unix_ns)

    # --- running ---------------------------------------------------------------------------------
    def run(
        self,
        *,
        until: Callable[[], bool] | None = None,
        until_entry: Callable[[Entry], bool] | None = None,
        time_limit_ns: int | None = None,
    ) -> RunEnd:
        """Run until `until` is true, all domains have ended, none can ever run again, virtual time
        reaches `time_limit_ns`, or `interrupt` is called.

        `until` is looked at whenever a domain has written to its console and at every other stop.
        `until_entry` is asked about every entry into the hypervisor, and a run that it ends has
        just done that one. Raises VmmBug for an exception of ours.
        """
        if until_entry is not None:
            with self._stop_at(until_entry, until) as either:
                return self.run(until=either, time_limit_ns=time_limit_ns)
        self._connect_probes()
        try:
            end = self.vmm.run(until, time_limit_ns)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise VmmBug(self.vmm.bug_report(error)) from error
        self._check()
        return end

    @contextmanager
    def _stop_at(
        self, wanted: Callable[[Entry], bool], until: Callable[[], bool] | None
    ) -> Iterator[Callable[[], bool]]:
        """While this lasts, an entry that is wanted stops the run; a predicate that says so."""
        arrived = False

        def look(entry: Entry) -> None:
            nonlocal arrived
            if not arrived and wanted(entry):
                arrived = True
                self.vmm.cpu.request_stop()

        self.on_entry.append(look)
        try:
            yield lambda: arrived or (until is not None and until())
        finally:
            self.on_entry.remove(look)

    @contextmanager
    def breakpoint(self, vaddr: int) -> Iterator[None]:
        """While this lasts, a run asks its `until` whenever the instruction at `vaddr` is next."""
        self.vmm.cpu.add_breakpoint(vaddr)
        try:
            yield
        finally:
            self.vmm.cpu.remove_breakpoint(vaddr)

    def step(self) -> Entry | None:
        """One instruction of the vCPU that is due; the entry into the VMM it led to, if any."""
        seen: list[Entry] = []
        self.on_entry.append(seen.append)
        self._connect_probes()
        try:
            self.vmm.step()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise VmmBug(self.vmm.bug_report(error)) from error
        finally:
            self.on_entry.remove(seen.append)
        if seen:  # else no count can have changed
            self._check()
        return seen[-1] if seen else None

    def interrupt(self) -> None:
        """Let `run` return soon, or at once if not running; for threads and signal handlers."""
        self.vmm.interrupt()

    def _connect_probes(self) -> None:
        self.vmm.probes.watch_entries(self._told if self.on_entry else None)

    def on_runstate(self, listener: Callable[[int, int, int, Runstate], None]) -> None:
        """Call `listener` with time in ns, domain, vCPU and its new run-state at each change.

        Register it before domains are made, or it does not hear of their beginnings.
        """
        self._on_runstate.append(listener)
        self.vmm.probes.runstate = self._runstate_changed

    def _runstate_changed(self, time_ns: int, domid: int, vcpu_id: int, state: int) -> None:
        for listener in self._on_runstate:
            listener(time_ns, domid, vcpu_id, Runstate(state))

    def _entered(self, entry: Entry) -> None:
        for listener in self.on_entry:
            listener(entry)

    def audit(self) -> None:
        """Recompute every count of the frame table from the page tables.

        Raises AuditError, which lists the differences: bugs of ours.
        """

        from hypervisor.mm.audit import audit  # numpy takes a tenth of a second to import

        audit(self.vmm.host.frames, self.vmm.audit_subjects())

    def _check(self) -> None:
        if self.audits:
            self.audit()

    # --- looking ---------------------------------------------------------------------------------
    @property
    def now_ns(self) -> int:
        """Virtual time."""
        return self.vmm.host.now_ns

    @property
    def current(self) -> VcpuHandle | None:
        """The vCPU whose turn it is, None when none can run."""
        vcpu = self.vmm.due()
        return None if vcpu is None else VcpuHandle(self.vmm, self.domains[vcpu.domid], vcpu)

    @property
    def on_cpu(self) -> VcpuHandle | None:
        """The vCPU whose turn it was when the run came back, None when nobody ran."""
        vcpu = self.vmm.on_cpu
        return None if vcpu is None else VcpuHandle(self.vmm, self.domains[vcpu.domid], vcpu)

    def digest(self) -> str:
        """SHA-256 over memory, CPU states and time."""
        return self.vmm.digest()

    @property
    def xen_log(self) -> bytes:
        """What the hypervisor itself said (xl dmesg)."""
        return bytes(self.vmm.host.log.text)
