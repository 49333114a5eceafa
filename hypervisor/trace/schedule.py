"""Who ran when: the run-states of all vCPUs over time, and what each domain was due.

Both recorders are probes (`Machine.on_runstate`). What a domain is due is computed as a fluid
scheduler would give it, one without slices (generalized processor sharing): the share that BVT and
its rivals approach, so a yardstick and not a promise. With one sum for all domains it costs the
same for 2 and for 128.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
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
class _Account:
    """One domain's, in `Dues`."""

    weight: int = 1
    wanting: set[int] = field(default_factory=set)  # vCPUs that run or wait to
    running_since: dict[int, int] = field(default_factory=dict)  # by vCPU, ns
    had_ns: int = 0  # of the CPUs, up to when its vCPUs last came to run
    due_ns: float = 0.0  # up to `entered`
    entered: float | None = None  # what was earned when it became active, None when it is not


class Dues:
    """What each domain is due of the CPUs; call it with each change of a run-state.

    A fluid scheduler serves every domain that has work, all at once, each by its weight. It has the
    domains' own work to do: one that was served at once and sleeps again is not done yet there, and
    one that waited long has had something by then. While the weights of those with work add up to
    W, a unit of weight earns 1/W: `earned` is the sum of that over time, and a domain's due is its
    weight times what was earned while it had work.

    With several CPUs no vCPU is due more than one, which this leaves out of account, so a domain of
    few vCPUs and much weight is then overrated.
    """

    def __init__(self, weight_of: Callable[[int], int], nr_pcpus: int = 1) -> None:
        """`weight_of` is asked by domain whenever that has work again."""
        self._weight_of = weight_of
        self._nr_pcpus = nr_pcpus
        self._accounts: dict[int, _Account] = defaultdict(_Account)
        self._behind: list[tuple[float, int]] = []  # (earned at which it is done, domid): a heap
        self._total = 0  # weight of all that have work
        self._earned = 0.0
        self._now_ns = 0

    def __call__(self, time_ns: int, domid: int, vcpu_id: int, state: Runstate) -> None:
        """The vCPU is in `state` from now on."""
        account = self._accounts[domid]
        if (since := account.running_since.pop(vcpu_id, None)) is not None:
            account.had_ns += time_ns - since
        if state is Runstate.RUNNING:
            account.running_since[vcpu_id] = time_ns
        wanted = bool(account.wanting)
        if state in _WANTS_CPU:
            account.wanting.add(vcpu_id)
        else:
            account.wanting.discard(vcpu_id)
        if bool(account.wanting) is not wanted:
            self._pass(time_ns)
            (self._rests if wanted else self._has_work)(domid, account)

    def due_ns(self, domid: int) -> float:
        """What `domid` is due, up to the time that was settled last."""
        return self._accounts[domid].due_ns

    def settle(self, time_ns: int) -> None:
        """Bring all dues up to `time_ns`; the weights that hold now count from there on."""
        self._pass(time_ns)
        for domid, account in self._accounts.items():
            if account.entered is not None:
                self._leave(account)
                self._enter(domid, account)
        self._behind = [
            (self._done_at(account), domid)
            for domid, account in self._accounts.items()
            if account.entered is not None and not account.wanting
        ]
        heapq.heapify(self._behind)

    def _pass(self, time_ns: int) -> None:
        """Let time pass; those who rest are done one after the other."""
        left_ns = float(time_ns - self._now_ns)
        while self._behind:
            done_at, domid = self._behind[0]
            account = self._accounts[domid]
            if account.wanting or account.entered is None or done_at != self._done_at(account):
                heapq.heappop(self._behind)  # it has more work since
                continue
            needs_ns = max(0.0, (done_at - self._earned) * self._total / self._nr_pcpus)
            if needs_ns > left_ns:
                break
            heapq.heappop(self._behind)
            left_ns -= needs_ns
            self._earned = max(self._earned, done_at)
            self._leave(account)
            account.due_ns = float(account.had_ns)
        if self._total:
            self._earned += self._nr_pcpus * left_ns / self._total
        self._now_ns = time_ns

    def _has_work(self, domid: int, account: _Account) -> None:
        if account.entered is None:
            self._enter(domid, account)

    def _rests(self, domid: int, account: _Account) -> None:
        """It is done when it has been served as much as it really had, perhaps already."""
        if self._done_at(account) <= self._earned:
            self._leave(account)
            account.due_ns = float(account.had_ns)
        else:
            heapq.heappush(self._behind, (self._done_at(account), domid))

    def _done_at(self, account: _Account) -> float:
        assert account.entered is not None
        return account.entered + (account.had_ns - account.due_ns) / account.weight

    def _enter(self, domid: int, account: _Account) -> None:
        if account.wanting:
            account.weight = self._weight_of(domid)
        account.entered = self._earned
        self._total += account.weight

    def _leave(self, account: _Account) -> None:
        assert account.entered is not None
        account.due_ns += account.weight * (self._earned - account.entered)
        account.entered = None
        self._total -= account.weight
