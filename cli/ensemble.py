"""Several domains on one machine, as `ring1 run` follows them: who they are now, and their sums.

An actor is one domain of the file. When it is restarted it is another domain with another number;
what the earlier ones did counts on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from cli.exits import Exit, Refusal
from cli.verdict import how_it_ended
from cli.watch import Watch
from hypervisor.api import DomainHandle, DomainState, Machine, RunEnd, Runstate
from hypervisor.config import ConfigError, RunSpec, read_run
from hypervisor.testing import stage
from hypervisor.testing.debian import Unavailable
from hypervisor.testing.script import readable_lines
from hypervisor.trace.schedule import Dues, Schedule

COUNTS: Final = ("switches", "wakeups", "upcalls", "hypercalls")
EVENTS_KEPT: Final = 50
_LINE_BYTES: Final = 512  # of a console's end, in which its last line is looked for
_STATES: Final = {
    Runstate.RUNNING: "running",
    Runstate.RUNNABLE: "waiting",
    Runstate.BLOCKED: "asleep",
    Runstate.OFFLINE: "paused",
}


@dataclass(slots=True)
class Row:
    """An actor at one moment: what a table or a script is told of it."""

    name: str
    domid: int
    weight: int
    cpu_ns: int
    share: float  # of the CPUs' time since the run began
    due: float  # of the same, under a scheduler without slices (trace.schedule.Dues)
    switches: int
    wakeups: int
    upcalls: int
    hypercalls: int
    restarts: int
    state: str  # one word while it lives, what became of it afterwards


@dataclass(slots=True)
class Actor:
    """One domain of the file."""

    handle: DomainHandle
    domids: list[int]
    known_weight: int = 1  # as long as it can be asked for
    cpu_ns: int = 0  # of those before the present one
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))

    def restarted_as(self, new: DomainHandle) -> None:
        """Add up the old domain, and follow the new one."""
        self.cpu_ns, self.counts = self.totals()
        self.handle = new
        self.domids.append(new.domid)

    def totals(self) -> tuple[int, dict[str, int]]:
        """CPU time and counts of all domains that this one was."""
        stats = self.handle.stats
        counts = {name: count + stats[name] for name, count in self.counts.items()}
        return self.cpu_ns + self.handle.cpu_time_ns, counts

    @property
    def weight(self) -> int:
        """Its present one, or what it was before the domain was destroyed."""
        if self.handle.state is not DomainState.DESTROYED:
            self.known_weight = self.handle.sched.weight
        return self.known_weight

    @property
    def state(self) -> str:
        """In words."""
        if (ended := how_it_ended(self.handle)) is not None:
            return ended[1]
        if self.handle.state is not DomainState.RUNNING:
            return str(self.handle.state.value)
        return _STATES[self.handle.runstate]

    @property
    def last_line(self) -> str:
        """What its console shows at the end."""
        lines = readable_lines(bytes(self.handle.console.output[-_LINE_BYTES:]))
        return lines[-1] if lines else ""


class Ensemble:
    """A machine made from a file, and its actors."""

    def __init__(self, machine: Machine, spec: RunSpec, *, records: bool) -> None:
        self.machine = machine
        self.spec = spec
        self.actors: list[Actor] = []
        self.events: deque[tuple[int, str]] = deque(maxlen=EVENTS_KEPT)  # time in ns, what
        self.schedule = Schedule() if records else None
        self.names: dict[int, str] = {}  # of all domains there ever were, by number
        host = machine.vmm.host
        self._dues = Dues(lambda domid: host.sched_params(host.domains[domid]).weight)
        machine.on_runstate(self._dues)
        if self.schedule is not None:
            machine.on_runstate(self.schedule)
        machine.on_restart.append(self._restarted)
        machine.on_end.append(self._ended)

    @classmethod
    def start(cls, stack: ExitStack, path: Path, *, records: bool) -> Self:
        """The machine that the file describes with all its domains, nothing run yet.

        Raises Refusal with one sentence.
        """
        try:
            spec = read_run(path)
            actors = stage.cast(spec.domains, path.parent)
            machine = stack.enter_context(stage.make_machine(spec.machine, spec.memory_mib))
            ensemble = cls(machine, spec, records=records)
            for actor in actors:
                ensemble._enter(stage.create(machine, actor))
        except (ConfigError, stage.StageError, Unavailable) as error:
            raise Refusal(str(error)) from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Refusal(f"cannot read {str(path)!r}: {reason}") from error
        return ensemble

    def _enter(self, handle: DomainHandle) -> None:
        self.actors.append(Actor(handle, [handle.domid], handle.sched.weight))
        self.names[handle.domid] = handle.name

    def _restarted(self, old: DomainHandle, new: DomainHandle) -> None:
        for actor in self.actors:
            if actor.handle is old:
                actor.restarted_as(new)
        self.names[new.domid] = new.name
        self.events.append((self.machine.now_ns, f"{new.name} starts again, as d{new.domid}"))

    def _ended(self, handle: DomainHandle) -> None:
        _, what = how_it_ended(handle) or (Exit.UNMET, "ended")
        self.events.append((self.machine.now_ns, f"{handle.name} {what}"))

    # --- at a moment -----------------------------------------------------------------------------
    def rows(self) -> list[Row]:
        """Every actor as it is now, in the order of the file."""
        now_ns = self.machine.now_ns
        self._dues.settle(now_ns)
        elapsed = max(1, now_ns)
        rows = []
        for actor in self.actors:
            cpu_ns, counts = actor.totals()
            due_ns = sum(self._dues.due_ns(domid) for domid in actor.domids)
            rows.append(
                Row(
                    name=actor.handle.name,
                    domid=actor.handle.domid,
                    weight=actor.weight,
                    cpu_ns=cpu_ns,
                    share=cpu_ns / elapsed,
                    due=due_ns / elapsed,
                    restarts=len(actor.domids) - 1,
                    state=actor.state,
                    **counts,
                )
            )
        return rows

    @property
    def on_cpu(self) -> str:
        """Who runs, "" when nobody does."""
        running = self.machine.on_cpu
        return "" if running is None else running.domain.name

    def verdict(self, run_end: RunEnd, watch: Watch) -> tuple[Exit, str]:
        """The exit status, and why the run came to its end."""
        ends = [how_it_ended(actor.handle) for actor in self.actors]
        statuses = {ended[0] for ended in ends if ended is not None}
        if watch.signalled is not None:
            return Exit.INTERRUPTED, "interrupted"
        if watch.timed_out:
            return Exit.UNMET, f"stopped after {watch.timeout_s:g} s of the host's time"
        worst = Exit.CRASHED if Exit.CRASHED in statuses else Exit.MET
        match run_end:
            case RunEnd.TIME_LIMIT:
                return worst, "ran as long as it was to"
            case RunEnd.ALL_STOPPED:
                unmet = Exit.UNMET if Exit.UNMET in statuses else Exit.MET
                return worst or unmet, "every domain has ended"
            case _:
                return worst or Exit.UNMET, "blocked for ever: nothing is left that could wake one"


def as_json(ensemble: Ensemble, rows: Sequence[Row], status: Exit, why: str) -> dict[str, Any]:
    """The summary for a script."""
    return {
        "title": ensemble.spec.title,
        "status": int(status),
        "why": why,
        "virtual_ns": ensemble.machine.now_ns,
        "domains": [asdict(row) for row in rows],
        "events": [{"ns": time_ns, "what": what} for time_ns, what in ensemble.events],
    }
