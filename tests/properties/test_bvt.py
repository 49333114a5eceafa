"""BVT against a model of it in exact fractions, and against what it promises, at every step.

The model is the definition written down as directly as possible: it looks at every domain each time
and knows no queues, no scaled integers and no grants. The promises are those of docs/bvt.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hypervisor.abi.width import Width
from hypervisor.domain.domain import Vcpu
from hypervisor.sched.bvt import SCALE, Bvt
from hypervisor.sched.params import SchedParams, SchedSettings

MS: Final = 1_000_000
DOMIDS: Final = st.integers(1, 5)
WEIGHTS: Final = st.integers(1, 16)  # whose inverses the policy has exactly
PARAMS: Final = st.builds(
    SchedParams,
    weight=WEIGHTS,
    warp=st.booleans(),
    warp_value_ns=st.sampled_from([0, MS, 7 * MS, 50 * MS]),
    warp_limit_ns=st.sampled_from([0, MS, 5 * MS]),
    unwarp_ns=st.sampled_from([0, 2 * MS, 30 * MS]),
)


@dataclass(eq=False)
class ModelDomain:
    """What the definition knows of a domain."""

    params: SchedParams
    a: Fraction  # actual virtual time, ns
    used: int = 0  # ns since the last whole unit
    can_run: bool = False
    since: int = 0  # order among equals
    is_new: bool = True
    warped: bool = False
    warped_for: int = 0
    unwarped_until: int | None = None
    asleep_since: int = 0

    @property
    def e(self) -> Fraction:
        return self.a - (self.params.warp_value_ns if self.warped else 0)


class Model:
    """The definition."""

    def __init__(self, c: int, q: int) -> None:
        self.c, self.q, self.now, self.svt, self.order = c, q, 0, Fraction(0), 0
        self.domains: dict[int, ModelDomain] = {}
        self.running: int | None = None
        self.woken: int | None = None
        self.gave_way = False

    def set_params(self, domid: int, params: SchedParams) -> None:
        self.look()
        dom = self.domains.setdefault(domid, ModelDomain(params, self.svt, asleep_since=self.now))
        dom.params, dom.unwarped_until, dom.warped_for = params, None, 0
        dom.warped = params.warp and params.warp_value_ns > 0
        self.requeue(domid)

    def requeue(self, domid: int, first: bool = False) -> None:
        self.order += 1
        self.domains[domid].since = -self.order if first else self.order

    def others(self) -> list[int]:
        waiting = [d for d, dom in self.domains.items() if dom.can_run and d != self.running]
        return sorted(waiting, key=lambda d: (self.domains[d].e, self.domains[d].since))

    def wake(self, domid: int) -> None:
        self.look()
        dom = self.domains[domid]
        dom.can_run, dom.a = True, max(dom.a, self.svt)
        dom.warped = dom.params.warp and dom.params.warp_value_ns > 0
        if dom.unwarped_until is not None and self.now < dom.unwarped_until:
            dom.warped = False
        elif dom.unwarped_until or self.now - dom.asleep_since >= dom.params.unwarp_ns:
            dom.unwarped_until, dom.warped_for = None, 0
        self.requeue(domid, first=not dom.is_new)
        dom.is_new = False
        if self.others()[0] == domid:
            self.woken = domid

    def sleep(self, domid: int) -> None:
        self.look()
        self.domains[domid].can_run, self.domains[domid].asleep_since = False, self.now
        if domid == self.running:
            self.running = None

    def pass_time(self, duration: int) -> None:
        self.now += duration
        if self.running is not None:
            dom = self.domains[self.running]
            units, dom.used = divmod(dom.used + duration, self.q)
            dom.a += Fraction(units * self.q, dom.params.weight)
            dom.warped_for += duration if dom.warped else 0
        self.look()

    def look(self) -> None:
        least = min((dom.a for dom in self.domains.values() if dom.can_run), default=self.svt)
        self.svt = max(self.svt, least)

    def choose(self) -> int | None:
        self.look()
        self.end_warps()
        others = self.others()
        if self.running is not None and others:
            dom, least = self.domains[self.running], self.domains[others[0]].e
            preempted = self.woken == others[0] and least < dom.e
            allowance = Fraction(0) if self.gave_way else Fraction(self.c, dom.params.weight)
            if preempted or (least <= dom.e - allowance):
                self.requeue(self.running)
                self.running = None
        if self.running is None and others:
            self.running = others[0]
        self.woken, self.gave_way = None, False
        return self.running

    def end_warps(self) -> None:
        if self.running is not None:
            dom = self.domains[self.running]
            if dom.warped and 0 < dom.params.warp_limit_ns <= dom.warped_for:
                dom.warped, dom.unwarped_until = False, self.now + dom.params.unwarp_ns
        ended = [
            (dom.unwarped_until, domid)
            for domid, dom in self.domains.items()
            if dom.can_run and dom.params.unwarp_ns and dom.unwarped_until is not None
        ]
        for until, domid in sorted(ended):
            if until <= self.now:
                dom = self.domains[domid]
                dom.warped, dom.warped_for, dom.unwarped_until = True, 0, None
                if domid != self.running:
                    self.requeue(domid)


class BvtMachine(RuleBasedStateMachine):
    """Wake, sleep, yield, change weights and warps, let time pass; one vCPU in each domain."""

    @initialize(
        c=st.sampled_from([200_000, MS, 5 * MS]),
        q=st.sampled_from([1, 7_000, 100_000]),
        first=PARAMS,
        second=PARAMS,
    )
    def start(self, c: int, q: int, first: SchedParams, second: SchedParams) -> None:
        self.policy = Bvt(SchedSettings(c, q))
        self.model = Model(c, q)
        self.vcpus: dict[int, Vcpu] = {}
        self.now = 0
        self.must_pick = False
        self.granted = 0  # ns that are left of it
        self.service: dict[int, int] = {}
        self.leads: dict[tuple[int, int], tuple[Fraction, int, int]] = {}  # and service, then
        self.runs_warped: list[tuple[int, int, int]] = []  # (domid, from, to) without other things
        self.add(first)
        self.add(second)

    # --- what happens ----------------------------------------------------------------------------
    @precondition(lambda self: len(self.vcpus) < 5)
    @rule(params=PARAMS)
    def add(self, params: SchedParams) -> None:
        domid = len(self.vcpus) + 1
        self.vcpus[domid] = Vcpu(domid, 0, Width.X86_64, 0)
        self.service[domid] = 0
        self.policy.add_domain(domid, params, self.now)
        self.model.set_params(domid, params)
        self.wake(domid)

    @rule(domid=DOMIDS)
    def wake(self, domid: int) -> None:
        vcpu = self.vcpus.get(domid)
        if vcpu is None or self.model.domains[domid].can_run:
            return
        calls_for_pick = self.policy.wake(vcpu, self.now)
        self.model.wake(domid)
        if calls_for_pick and not self.must_pick:
            self._go_on_or_pick()
        assert self.model.domains[domid].a >= self.model.svt  # promise 3
        self._new_pairs(domid)

    def _go_on_or_pick(self) -> None:
        """Who runs is asked to go on only where `pick` would say the same."""
        left = self.policy.goes_on_ns(self.now)
        if left is None:
            self.must_pick = True
            return
        before = self.model.running
        assert self.model.choose() == before
        assert left >= 1
        self.granted = left

    @rule(domid=DOMIDS)
    def sleep(self, domid: int) -> None:
        if domid not in self.vcpus or not self.model.domains[domid].can_run:
            return
        self.must_pick |= self.policy.sleep(self.vcpus[domid], self.now)
        self.model.sleep(domid)
        self._forget_pairs(domid)

    @rule()
    def yield_(self) -> None:
        if (domid := self.model.running) is not None and not self.must_pick:
            self.must_pick |= self.policy.yield_(self.vcpus[domid], self.now)
            self.model.gave_way = True

    @rule(domid=DOMIDS, params=PARAMS)
    def adjust(self, domid: int, params: SchedParams) -> None:
        if domid in self.vcpus:
            self.must_pick |= self.policy.adjust(domid, params, self.now)
            self.model.set_params(domid, params)
            self._new_pairs(domid)

    @rule(duration=st.integers(0, 12 * MS), looks=st.integers(0, 2))
    def run(self, duration: int, looks: int) -> None:
        """Time passes; the policy is asked when what it granted is over. Others may look at it."""
        end = self.now + duration
        while True:
            if self.must_pick or (self.model.running is not None and self.granted <= 0):
                self._choose()
            if self.now >= end:
                break
            step = end - self.now
            if self.model.running is not None:
                step = min(step, self.granted)
            self._pass_time(step, looks)

    def _choose(self) -> None:
        self.must_pick = False
        choice = self.policy.pick(self.now)
        expected = self.model.choose()
        assert (None if choice is None else choice[0].domid) == expected
        if choice is not None:
            self.granted = choice[1]
            assert self.granted >= 1

    def _pass_time(self, step: int, looks: int) -> None:
        running = self.model.running
        for look in range(1, looks + 1):
            self.policy.charge(self.now + step * look // (looks + 1))
        if running is not None:
            self.granted -= step
            self.service[running] += step
            if self.model.domains[running].warped:
                self._note_warped(running, self.now, self.now + step)
        self.now += step
        self.policy.charge(self.now)
        self.model.pass_time(step)

    # --- what is promised ------------------------------------------------------------------------
    @invariant()
    def accounts_are_the_model_s(self) -> None:
        self.policy.charge(self.now)
        self.model.look()
        for domid, dom in self.model.domains.items():
            account = self.policy.account(domid)
            assert Fraction(account.avt, SCALE) == dom.a
            assert Fraction(account.evt, SCALE) == dom.e or not dom.can_run
            assert self.policy.stats(domid).cpu_ns == self.service[domid]
        assert Fraction(self.policy.svt, SCALE) == self.model.svt

    @invariant()
    def nobody_is_ahead_by_more_than_allowed(self) -> None:
        """Promises 1 and 2: (C + unit) / weight, and what it may borrow."""
        slack = self.model.c + self.model.q
        for (i, j), (lead, before_i, before_j) in self.leads.items():
            params, other = self.model.domains[i].params, self.model.domains[j].params
            got_i = Fraction(self.service[i] - before_i, params.weight)
            got_j = Fraction(self.service[j] - before_j, other.weight)
            borrowed = params.warp_value_ns if params.warp else 0
            assert lead + got_i - got_j <= max(lead, Fraction(slack, params.weight) + borrowed)

    @invariant()
    def warp_keeps_its_limit(self) -> None:
        """Promise 4: at most the limit in a row, and at least the unwarp time between two rows."""
        for domid, dom in self.model.domains.items():
            limit = dom.params.warp_limit_ns
            if limit and dom.params.unwarp_ns:
                assert self._warped_in_a_row(domid, dom.params.unwarp_ns) <= limit

    @invariant()
    def somebody_runs_if_somebody_can(self) -> None:
        """Promise 6."""
        can_run = any(dom.can_run for dom in self.model.domains.values())
        assert self.must_pick or (self.model.running is not None) == can_run

    # --- book-keeping ----------------------------------------------------------------------------
    def _new_pairs(self, domid: int) -> None:
        """From now on two that can run are compared, from the lead that one has at this moment."""
        self._forget_pairs(domid)
        self.runs_warped = [run for run in self.runs_warped if run[0] != domid]
        awake = [d for d, dom in self.model.domains.items() if dom.can_run]
        for i, j in permutations(awake, 2):
            if domid in (i, j):
                lead = self._exactly(i) - self._exactly(j)
                self.leads[i, j] = (lead, self.service[i], self.service[j])

    def _exactly(self, domid: int) -> Fraction:
        """Its A with what it has used of the next charging unit."""
        dom = self.model.domains[domid]
        return dom.a + Fraction(dom.used, dom.params.weight)

    def _forget_pairs(self, domid: int) -> None:
        self.leads = {pair: lead for pair, lead in self.leads.items() if domid not in pair}

    def _note_warped(self, domid: int, start: int, end: int) -> None:
        self.runs_warped.append((domid, start, end))

    def _warped_in_a_row(self, domid: int, pause: int) -> int:
        """The longest time it ran warped without a pause of `pause`."""
        longest = row = 0
        last_end: int | None = None
        for who, start, end in self.runs_warped:
            if who != domid:
                continue
            if last_end is not None and start - last_end >= pause:
                row = 0
            row += end - start
            last_end = end
            longest = max(longest, row)
        return longest


TestBvt = BvtMachine.TestCase
TestBvt.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
