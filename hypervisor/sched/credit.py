"""Xen's credit scheduler (credit1) in essentials: what replaced BVT, because it can cap.

Time is money here: who runs pays, and every 30 ms each domain that wanted to run is given its share
by weight. A domain with credit is UNDER and goes before those that are OVER; one that wakes while
UNDER is boosted, and goes before all until the next tick. A capped domain that has spent its
allowance is parked until the next payday, even if nobody else wants the CPU. Compared with Xen's
common/sched/credit.c: credit is counted in ns, one run queue, no balancing between CPUs, and a
domain's vCPUs share one account and rotate inside its turn.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from hypervisor.domain.domain import Vcpu
from hypervisor.sched.params import SchedParams, SchedSettings
from hypervisor.sched.protocol import SchedStats
from hypervisor.sched.rotation import Rotation

TSLICE_NS: Final = 30_000_000
TICK_NS: Final = 10_000_000


class Priority(IntEnum):
    """Who goes first."""

    BOOST = 0
    UNDER = 1
    OVER = 2
    PARKED = 3  # does not run


@dataclass(slots=True, eq=False)
class Purse:
    """A domain's account."""

    domid: int
    params: SchedParams
    credit_ns: int = 0
    is_boosted: bool = False
    wanted: bool = False  # it could run since the last payday
    is_parked: bool = False
    ready: Rotation = field(default_factory=Rotation)
    stats: SchedStats = field(default_factory=SchedStats)

    @property
    def priority(self) -> Priority:
        if self.is_parked:
            return Priority.PARKED
        if self.is_boosted:
            return Priority.BOOST
        return Priority.UNDER if self.credit_ns >= 0 else Priority.OVER


class Credit:
    """The policy at work on one physical CPU."""

    def __init__(self, settings: SchedSettings) -> None:
        self._purses: dict[int, Purse] = {}
        self._queue: deque[Purse] = deque()  # that can run and do not, in order of arrival
        self._running: Purse | None = None
        self._charged_ns = 0
        self._next_tick_ns = TICK_NS
        self._turn_ends_ns = 0

    @property
    def least_turn_ns(self) -> int:
        """A tick: after it somebody else may have a better priority."""
        return TICK_NS

    # --- domains -------------------------------------------------------------------------------
    def add_domain(self, domid: int, params: SchedParams, now_ns: int) -> None:
        """A new domain has no credit, which is UNDER."""
        self._purses[domid] = Purse(domid, params)

    def remove_domain(self, domid: int, now_ns: int) -> None:
        """Forget `domid` and its vCPUs."""
        self.charge(now_ns)
        purse = self._purses.pop(domid)
        if purse is self._running:
            self._running = None
        elif purse in self._queue:
            self._queue.remove(purse)

    def adjust(self, domid: int, params: SchedParams, now_ns: int) -> bool:
        """Counts from the next payday on; a cap that is gone frees at once."""
        purse = self._purses[domid]
        purse.params = params
        if purse.is_parked and not params.cap_percent:
            purse.is_parked = False
            return True
        return False

    def params(self, domid: int) -> SchedParams:
        """What `domid` is promised at present."""
        return self._purses[domid].params

    def stats(self, domid: int) -> SchedStats:
        """What `domid` got up to the last charge."""
        return self._purses[domid].stats

    # --- who can run -----------------------------------------------------------------------------
    def wake(self, vcpu: Vcpu, now_ns: int) -> bool:
        """`vcpu` can run; a domain that wakes UNDER is boosted."""
        purse = self._purses[vcpu.domid]
        self.charge(now_ns)
        if purse.ready:
            if not purse.ready.holds(vcpu):
                purse.ready.append(vcpu)
            return purse is self._running and purse.ready.favour(vcpu)
        purse.ready.append(vcpu)
        purse.wanted = True
        if purse.priority is Priority.UNDER:
            purse.is_boosted = True
            purse.stats.warps += 1
        self._queue.append(purse)
        return self._running is None or purse.priority < self._running.priority

    def sleep(self, vcpu: Vcpu, now_ns: int) -> bool:
        """`vcpu` cannot run any more."""
        purse = self._purses[vcpu.domid]
        if not purse.ready.holds(vcpu):
            return False
        self.charge(now_ns)
        ran = purse is self._running and purse.ready.first is vcpu
        purse.ready.remove(vcpu)
        if not purse.ready:
            if purse is self._running:
                self._running = None
            else:
                self._queue.remove(purse)
        return ran

    def yield_(self, vcpu: Vcpu, now_ns: int) -> bool:
        """A sibling runs, or if there is none the next of the same priority."""
        purse = self._purses[vcpu.domid]
        if purse is not self._running or purse.ready.first is not vcpu:
            return False
        self.charge(now_ns)
        if not purse.ready.rotate():
            self._turn_ends_ns = now_ns
        return True

    # --- the choice ------------------------------------------------------------------------------
    def pick(self, now_ns: int) -> tuple[Vcpu, int] | None:
        """The first of the best priority, unless the slice of who runs is not over."""
        self.charge(now_ns)
        before = self._running
        best = min((purse.priority for purse in self._queue), default=Priority.PARKED)
        if before is not None and self._gives_way(before, best, now_ns):
            self._queue.append(before)
            self._running = None
            best = min(best, before.priority)
        if self._running is None and best is not Priority.PARKED:
            chosen = next(purse for purse in self._queue if purse.priority is best)
            self._queue.remove(chosen)
            self._running = chosen
            self._turn_ends_ns = now_ns + TSLICE_NS
            if chosen is not before:
                chosen.stats.turns += 1
                if before is not None:
                    before.stats.preemptions += 1
        return self._grant(now_ns)

    def _gives_way(self, running: Purse, best: Priority, now_ns: int) -> bool:
        if running.is_parked or best < running.priority:
            return True
        return now_ns >= self._turn_ends_ns

    def _grant(self, now_ns: int) -> tuple[Vcpu, int] | None:
        purse = self._running
        if purse is None:
            return None
        granted = min(self._turn_ends_ns, self._next_tick_ns) - now_ns
        if (slice_ns := purse.ready.left_ns()) is not None:
            granted = min(granted, slice_ns)
        return purse.ready.first, max(1, granted)

    def goes_on_ns(self, now_ns: int) -> int | None:
        """`pick` says it."""
        return None

    def next_event_ns(self) -> int | None:
        """When to `pick` again although nobody runs: somebody is parked until then."""
        return self._next_tick_ns if any(purse.is_parked for purse in self._queue) else None

    # --- time and money --------------------------------------------------------------------------
    def charge(self, now_ns: int) -> None:
        """Who runs pays until now; ticks and paydays that have come are done."""
        if self._running is None and not self._queue and self._next_tick_ns <= now_ns:
            self._pass_over((now_ns - self._next_tick_ns) // TICK_NS + 1)
        while self._next_tick_ns <= now_ns:
            self._pay_until(self._next_tick_ns)
            self._tick()
        self._pay_until(now_ns)

    def _pass_over(self, nr_ticks: int) -> None:
        """Nobody wants anything: debts are forgotten, and nobody is paid."""
        self._next_tick_ns += nr_ticks * TICK_NS
        if nr_ticks >= 2 * TSLICE_NS // TICK_NS:
            for purse in self._purses.values():
                purse.credit_ns, purse.wanted, purse.is_parked = 0, False, False

    def _pay_until(self, time_ns: int) -> None:
        purse = self._running
        if purse is not None:
            duration = time_ns - self._charged_ns
            purse.credit_ns -= duration
            purse.stats.cpu_ns += duration
            purse.ready.charge(duration)
        self._charged_ns = time_ns

    def _tick(self) -> None:
        """The running domain's boost is over; every third tick is payday."""
        self._next_tick_ns += TICK_NS
        if self._running is not None:
            self._running.is_boosted = False
            self._running.wanted = True
        if (self._next_tick_ns // TICK_NS - 1) % (TSLICE_NS // TICK_NS) == 0:
            self._pay_day()

    def _pay_day(self) -> None:
        """Share out a slice's worth of time among those who wanted any (csched_acct)."""
        active = [purse for purse in self._purses.values() if purse.wanted or purse.ready]
        total_weight = sum(purse.params.weight for purse in active)
        for purse in active:
            share = TSLICE_NS * purse.params.weight // total_weight
            cap_ns = TSLICE_NS * purse.params.cap_percent // 100
            if cap_ns:
                share = min(share, cap_ns)
            purse.credit_ns = min(purse.credit_ns + share, TSLICE_NS)
            purse.is_parked = bool(cap_ns) and purse.credit_ns < -cap_ns
            if cap_ns and not purse.is_parked:
                purse.credit_ns = min(purse.credit_ns, cap_ns)
            purse.credit_ns = max(purse.credit_ns, -TSLICE_NS)
            purse.wanted = bool(purse.ready)
