"""Who ran when: the run-states of all vCPUs over time, and what each domain was due.

The recorder is a probe (`Probes.runstate`). What a domain is due is computed as a fluid scheduler
would give it: at each moment those that want a CPU share it by their weights. That is the share
that BVT and its rivals approach, and it takes no account of who slept too long ago, so it is a
yardstick and not a promise. With one sum for all domains it costs the same for 2 and for 128.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hypervisor.abi.vcpu import Runstate

_WANTS_CPU: Final = frozenset({Runstate.RUNNING, Runstate.RUNNABLE})


@dataclass(frozen=True, slots=True)
class Span:
    """A vCPU was in one state from `start_ns` to `end_ns`."""

    domid: int
    vcpu_id: int
    state: Runstate
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class Schedule:
    """Records spans, in the order of their ends. Call it with each change of a run-state."""

    spans: list[Span] = field(default_factory=list)
    _since: dict[tuple[int, int], tuple[Runstate, int]] = field(default_factory=dict)

    def __call__(self, time_ns: int, domid: int, vcpu_id: int, state: Runstate) -> None:
        """The vCPU is in `state` from now on."""
        self._end(domid, vcpu_id, time_ns)
        self._since[domid, vcpu_id] = (state, time_ns)

    def finish(self, time_ns: int) -> None:
        """End every span that goes on, as if its state changed now."""
        for (domid, vcpu_id), (state, _) in list(self._since.items()):
            self(time_ns, domid, vcpu_id, state)

    def _end(self, domid: int, vcpu_id: int, time_ns: int) -> None:
        state, since = self._since.get((domid, vcpu_id), (Runstate.OFFLINE, time_ns))
        if time_ns > since and state is not Runstate.OFFLINE:
            self.spans.append(Span(domid, vcpu_id, state, since, time_ns))


@dataclass(slots=True)
class Dues:
    """What each domain is due of the CPUs, ns; call it with each change of a run-state.

    While the weights of those that want a CPU add up to W, a unit of weight earns 1/W: `earned` is
    the sum of that over time, and a domain's due is its weight times what was earned while it
    wanted. With several CPUs no vCPU is due more than one, which this leaves out of account, so a
    domain of few vCPUs and much weight is then overrated.
    """

    weight_of: Callable[[int], int]  # by domid
    nr_pcpus: int = 1
    due_ns: dict[int, float] = field(default_factory=dict)
    _wanting: dict[int, set[int]] = field(default_factory=dict)  # vCPUs, by domid
    _entered: dict[int, tuple[float, int]] = field(default_factory=dict)  # earned then, weight
    _total: int = 0
    _earned: float = 0.0
    _now_ns: int = 0

    def __call__(self, time_ns: int, domid: int, vcpu_id: int, state: Runstate) -> None:
        """The vCPU is in `state` from now on."""
        wanting = self._wanting.setdefault(domid, set())
        wanted = bool(wanting)
        if state in _WANTS_CPU:
            wanting.add(vcpu_id)
        else:
            wanting.discard(vcpu_id)
        if bool(wanting) is not wanted:
            self._pass(time_ns)
            (self._leave if wanted else self._join)(domid)

    def settle(self, time_ns: int) -> None:
        """Bring `due_ns` up to `time_ns`, with the weights that hold now."""
        self._pass(time_ns)
        for domid in list(self._entered):
            self._leave(domid)
            self._join(domid)

    def _pass(self, time_ns: int) -> None:
        if self._total:
            self._earned += self.nr_pcpus * (time_ns - self._now_ns) / self._total
        self._now_ns = time_ns

    def _join(self, domid: int) -> None:
        weight = self.weight_of(domid)
        self._entered[domid] = (self._earned, weight)
        self._total += weight

    def _leave(self, domid: int) -> None:
        earned, weight = self._entered.pop(domid)
        self._total -= weight
        self.due_ns[domid] = self.due_ns.get(domid, 0.0) + weight * (self._earned - earned)
