"""One guest's session, run under every disturbance that must not be seen in it.

A session is recorded as its entries into the VMM (time, place, arguments, result, a checksum of the
registers) and the digest of the machine at its end. What a disturbance may change is host time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.api import DomainHandle, DomainState, Entry, Machine, RunEnd, StateAccess
from hypervisor.machine.cpu import Stop
from tests.support.storm import storm

SECOND = 10**9
STEPS = 3000
MAX_BREAKPOINTS = 12


@dataclass(slots=True)
class Recording:
    """What a session was."""

    entries: list[Entry]
    digest: str
    now_ns: int
    disturbed: int  # how often the disturbance struck


@dataclass(frozen=True, slots=True)
class Exchange:
    """Run until `sees` is on the console, then type `types`."""

    sees: bytes
    types: bytes = b""


@dataclass(slots=True)
class Run:
    """A session under way, as a disturbance gets hold of it."""

    machine: Machine
    dom: DomainHandle
    reference: Recording | None
    disturbed: int = 0
    steps: int = 0


Disturbance = Callable[[Run], AbstractContextManager[None]]


@contextmanager
def nothing(run: Run) -> Iterator[None]:
    """An ordinary run."""
    yield


@contextmanager
def stop_storm(run: Run) -> Iterator[None]:
    """Another thread stops the CPU all the time."""

    def kicked() -> None:
        run.disturbed += 1

    with storm(run.machine.vmm.cpu, kicked=kicked):
        yield


@contextmanager
def code_dropped(run: Run) -> Iterator[None]:
    """All translated code is forgotten at one entry in five."""
    chance = random.Random(1)

    def drop(entry: Entry) -> None:
        if chance.random() < 0.2:
            run.machine.vmm.cpu.drop_code()
            run.disturbed += 1

    run.machine.on_entry.append(drop)
    yield


@contextmanager
def breakpoints(run: Run) -> Iterator[None]:
    """The CPU stops before instructions that entered the VMM in the reference, and goes on."""
    assert run.reference is not None
    places = sorted({entry.rip for entry in run.reference.entries})
    cpu = run.machine.vmm.cpu
    for vaddr in places[:: max(1, len(places) // MAX_BREAKPOINTS)]:
        cpu.add_breakpoint(vaddr)
    run_cpu = cpu.run

    def counted(until_ps: int | None) -> Stop:
        stop = run_cpu(until_ps)
        run.disturbed += stop is Stop.BREAKPOINT
        return stop

    cpu.run = counted  # type: ignore[method-assign]
    yield


@contextmanager
def stepped(run: Run) -> Iterator[None]:
    """A stretch of the beginning, and one behind each exchange, instruction by instruction."""
    run.steps = STEPS
    yield


#: Every disturbance by name, with what the machine is made with.
DISTURBANCES: dict[str, tuple[Disturbance, dict[str, Any]]] = {
    "again": (nothing, {}),
    "stop storm": (stop_storm, {}),
    "code dropped": (code_dropped, {}),
    "breakpoints": (breakpoints, {}),
    "stepped": (stepped, {}),
    "state copies": (nothing, {"access": StateAccess.COPIES}),
    "state copies, stop storm": (stop_storm, {"access": StateAccess.COPIES}),
    "state copies, stepped": (stepped, {"access": StateAccess.COPIES}),
    "Python counter": (nothing, {"native_clock": False}),
}


@dataclass(frozen=True, slots=True)
class Script:
    """What is run: a kernel, and what is said to it."""

    kernel: Path
    exchanges: tuple[Exchange, ...] = ()
    memory_mib: int = 32
    cmdline: str = ""
    others: tuple[Path, ...] = ()

    def record(
        self,
        disturb: Disturbance = nothing,
        reference: Recording | None = None,
        *,
        traced: bool = True,
        **machine: Any,
    ) -> Recording:
        """Run it once. Host time is all that `disturb` may change."""
        domains = 1 + len(self.others)
        with Machine(memory_mib=16 + domains * (self.memory_mib + 8), **machine) as host:
            entries: list[Entry] = []
            dom = self._create(host, self.kernel)
            for kernel in self.others:
                self._create(host, kernel)
            if traced:
                host.on_entry.append(entries.append)
            run = Run(host, dom, reference)
            with disturb(run):
                self._talk(run)
            return Recording(entries, host.digest(), host.now_ns, run.disturbed)

    def _create(self, host: Machine, kernel: Path) -> DomainHandle:
        return host.create(kernel, memory_mib=self.memory_mib, cmdline=self.cmdline)

    def _talk(self, run: Run) -> None:
        for exchange in self.exchanges:
            _until(run, exchange.sees)
            run.dom.console.send(exchange.types)
        if not self.exchanges:
            _until(run, None)


def _until(run: Run, sees: bytes | None) -> None:
    """Run until `sees` is on the console, or with None until all domains have ended."""
    output = run.dom.console.output
    seen = len(output)

    def is_there() -> bool:
        return sees is not None and output.find(sees, seen) >= 0

    for _ in range(run.steps):
        if is_there() or not _step(run):
            return
    while True:
        end = run.machine.run(until=is_there, time_limit_ns=SECOND)
        if end is not RunEnd.INTERRUPTED:
            assert end is (RunEnd.ALL_STOPPED if sees is None else RunEnd.PREDICATE), output
            return


def _step(run: Run) -> bool:
    run.disturbed += 1
    run.machine.step()
    return run.dom.state is DomainState.RUNNING


def first_difference(reference: Recording, other: Recording) -> str:
    """The first entry that differs, in words; empty when none does."""
    pairs = zip(reference.entries, other.entries, strict=False)
    for number, (expected, found) in enumerate(pairs):
        if expected != found:
            return f"entry {number}: expected {expected}, found {found}"
    if len(reference.entries) != len(other.entries):
        return f"{len(reference.entries)} entries expected, found {len(other.entries)}"
    return ""
