"""Borrowed Virtual Time (Duda and Cheriton, SOSP 1999), between domains.

Each domain has an *actual virtual time* A, which advances while it runs, the slower the greater its
weight. The domain with the least *effective* virtual time E runs: E is A, less the warp value while
the domain is warped. That is all; what remains says when not to switch and when not to borrow.

- *Context switch allowance* C: whoever runs goes on until another one's E is less by C of its own
  real time. Not against a domain that has just woken: that one runs at once if its E is less.
- *Wake-up*: A becomes at least the *scheduler virtual time*, the least A of all that can run. What
  was not used while asleep is not made up for.
- *Warp*: to be preferred is borrowed, since A advances all the same. A domain that has run warped
  for its limit is unwarped for its unwarp time; after that, or after a sleep as long, it has the
  whole limit again. So it runs warped for at most limit / (limit + unwarp time) of the time.
- *Minimum charging unit*: A advances by whole units. A unit that was begun is carried to the next
  turn, neither rounded up nor forgotten: a domain that others interrupt often would otherwise pay
  more than it got, without bound.

For two domains that can run all the time and are not warped the difference of their A is then at
most (C + unit) / weight of whoever is ahead, at any moment (docs/bvt.md has the proof).

A is a whole number of 1 / SCALE ns. That is exact for weights up to 16; for others a unit is
rounded down, by less than one part in 10^12 of itself for each step of the weight.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Final, TypeVar

from hypervisor.domain.domain import Vcpu
from hypervisor.sched.params import SchedParams, SchedSettings
from hypervisor.sched.protocol import SchedStats
from hypervisor.sched.rotation import Rotation

SCALE: Final = math.lcm(*range(1, 17))  # of virtual time: units in a ns
_Item = TypeVar("_Item", bound=tuple[int, ...])
_ALONE: Final = 10  # allowances that a domain runs before somebody looks again, as in Xen


@dataclass(slots=True, eq=False)
class Account:
    """A domain on one physical CPU. Virtual times are in 1 / SCALE ns."""

    domid: int
    params: SchedParams
    advance: int = 0  # what a charging unit adds to avt
    avt: int = 0  # actual virtual time
    evt: int = 0  # effective virtual time
    used_ns: int = 0  # of the unit that was begun; less than a unit
    order: int = 0  # among those with the same evt: who woke, then who waits longest; 0: is new
    is_warped: bool = False
    warped_ns: int = 0  # it ran warped since it last had its whole limit
    unwarped_until_ns: int | None = None  # it had all its limit, and may warp again then
    asleep_since_ns: int = 0
    ready: Rotation = field(default_factory=Rotation)
    stats: SchedStats = field(default_factory=SchedStats)


class Bvt:
    """The policy at work on one physical CPU."""

    def __init__(self, settings: SchedSettings, *, svt_ns: int = 0) -> None:
        self.settings = settings
        self.svt = svt_ns * SCALE  # scheduler virtual time; never less than before
        self._accounts: dict[int, Account] = {}
        # of those that can run and do not: sorted, least first
        self._by_evt: list[tuple[int, int, int]] = []  # (evt, order, domid)
        self._by_avt: list[tuple[int, int]] = []  # (avt, domid)
        self._unwarping: list[tuple[int, int]] = []  # (until, domid): they may warp again
        self._running: Account | None = None
        self._picked: Vcpu | None = None
        self._charged_ns = 0  # up to when the one that runs is charged
        self._order = 0
        self._has_woken: int | None = (
            None  # domid, since the last choice: the least E of all waiting
        )
        self._gave_way = False  # the one that runs renounces its allowance

    @property
    def least_turn_ns(self) -> int:
        """The context switch allowance."""
        return self.settings.ctx_allow_ns

    # --- domains -------------------------------------------------------------------------------
    def add_domain(self, domid: int, params: SchedParams, now_ns: int) -> None:
        """A new domain starts at the scheduler virtual time."""
        self.charge(now_ns)
        account = Account(domid, params, avt=self.svt, asleep_since_ns=now_ns)
        self._accounts[domid] = account
        self._set_params(account, params)

    def remove_domain(self, domid: int, now_ns: int) -> None:
        """Forget `domid` and its vCPUs."""
        self.charge(now_ns)
        account = self._accounts.pop(domid)
        self._forget_unwarping(account)
        if account is self._running:
            self._running = self._picked = None
        elif account.ready:
            self._dequeue(account)

    def adjust(self, domid: int, params: SchedParams, now_ns: int) -> bool:
        """Other parameters from now on; a warp begins anew with its whole limit."""
        self.charge(now_ns)
        account = self._accounts[domid]
        waits = account.ready and account is not self._running
        if waits:
            self._dequeue(account)
        self._set_params(account, params)
        if waits:
            self._enqueue(account)
        return bool(account.ready)

    def _set_params(self, account: Account, params: SchedParams) -> None:
        account.params = params
        account.advance = self.settings.mcu_ns * SCALE // params.weight
        self._forget_unwarping(account)
        self._set_warp(account, params.warp and params.warp_value_ns > 0)

    def params(self, domid: int) -> SchedParams:
        """What `domid` is promised at present."""
        return self._accounts[domid].params

    def stats(self, domid: int) -> SchedStats:
        """What `domid` got up to the last charge."""
        return self._accounts[domid].stats

    def account(self, domid: int) -> Account:
        """All there is about `domid`, to be looked at."""
        return self._accounts[domid]

    # --- who can run -----------------------------------------------------------------------------
    def wake(self, vcpu: Vcpu, now_ns: int) -> bool:
        """`vcpu` can run from now on, or an event came for it."""
        account = self._accounts[vcpu.domid]
        if account.ready:
            return self._wake_beside_siblings(account, vcpu)
        self.charge(now_ns)
        account.ready.append(vcpu)
        account.avt = max(account.avt, self.svt)
        self._regain_warp(account, now_ns)
        self._enqueue(account, goes_first=account.order != 0)
        if self._by_evt[0][2] != account.domid:
            return self._running is None
        self._has_woken = account.domid
        return True

    def _wake_beside_siblings(self, account: Account, vcpu: Vcpu) -> bool:
        if not account.ready.holds(vcpu):
            account.ready.append(vcpu)
        return account is self._running and account.ready.favour(vcpu)

    def sleep(self, vcpu: Vcpu, now_ns: int) -> bool:
        """`vcpu` cannot run any more."""
        account = self._accounts[vcpu.domid]
        if not account.ready.holds(vcpu):
            return False
        self.charge(now_ns)
        account.ready.remove(vcpu)
        if not account.ready:
            self._fall_asleep(account, now_ns)
            if account is self._running:
                self._running = None
            else:
                self._dequeue(account)
        if vcpu is not self._picked:
            return False
        self._picked = None
        return True

    def yield_(self, vcpu: Vcpu, now_ns: int) -> bool:
        """A sibling runs, or if there is none whoever has the least E, without the allowance."""
        account = self._accounts[vcpu.domid]
        if account is not self._running or vcpu is not account.ready.first:
            return False
        self.charge(now_ns)
        self._gave_way = not account.ready.rotate()
        return True

    # --- the choice ------------------------------------------------------------------------------
    def pick(self, now_ns: int) -> tuple[Vcpu, int] | None:
        """The domain with the least E, unless the allowance speaks for the one that runs."""
        self.charge(now_ns)
        self._end_warps(now_ns)
        before = self._running
        if before is not None and not self._goes_on(before):
            before.stats.preemptions += 1
            self._enqueue(before)
            self._running = None
        self._has_woken = None
        self._gave_way = False
        if self._running is None and self._by_evt:
            self._start(self._accounts[self._by_evt[0][2]], before)
        account = self._running
        if account is None:
            return None
        granted_ns = self._granted_ns(account, now_ns)
        self._picked = account.ready.first
        return self._picked, granted_ns

    def goes_on_ns(self, now_ns: int) -> int | None:
        """What is left of the turn of whoever was picked, if nobody is to take its place."""
        self._end_warps(now_ns)
        account = self._running
        if account is None or self._picked is None or not self._goes_on(account):
            return None
        granted_ns = self._granted_ns(account, now_ns)
        if self._gave_way or account.ready.first is not self._picked:
            return None
        self._has_woken = None
        return granted_ns

    def _goes_on(self, running: Account) -> bool:
        """Whether nobody's E is less by the allowance, nor at all after having just woken."""
        if not self._by_evt:
            return True
        lead = running.evt - self._by_evt[0][0]
        if self._gave_way:
            return lead < 0
        if lead > 0 and self._has_woken == self._by_evt[0][2]:
            return False
        return lead * running.params.weight < self.settings.ctx_allow_ns * SCALE

    def _start(self, account: Account, before: Account | None) -> None:
        self._dequeue(account)
        self._running = account
        if account is not before:
            account.stats.turns += 1

    def _granted_ns(self, account: Account, now_ns: int) -> int:
        """When the next choice is due, if nothing happens before: never less than 1 ns."""
        granted = self._turn_ns(account)
        if (slice_ns := account.ready.left_ns()) is not None:
            granted = min(granted, slice_ns)
        if account.is_warped and account.params.warp_limit_ns:
            granted = min(granted, account.params.warp_limit_ns - account.warped_ns)
        if self._unwarping:
            granted = min(granted, self._unwarping[0][0] - now_ns)
        return max(1, granted)

    def _turn_ns(self, account: Account) -> int:
        """How long until `account` has to give way: whole charging units."""
        settings = self.settings
        if not self._by_evt:
            return _ALONE * settings.ctx_allow_ns
        weight = account.params.weight
        distance = settings.ctx_allow_ns * SCALE - (account.evt - self._by_evt[0][0]) * weight
        units = -(-distance // (account.advance * weight))
        return units * settings.mcu_ns - account.used_ns

    # --- time ------------------------------------------------------------------------------------
    def next_event_ns(self) -> int | None:
        """Nothing happens here by itself."""
        return None

    def charge(self, now_ns: int) -> None:
        """Whoever runs has run until now; scheduler virtual time follows."""
        account = self._running
        if account is not None:
            duration = now_ns - self._charged_ns
            account.stats.cpu_ns += duration
            account.ready.charge(duration)
            units, account.used_ns = divmod(account.used_ns + duration, self.settings.mcu_ns)
            account.avt += units * account.advance
            account.evt += units * account.advance
            if account.is_warped:
                account.warped_ns += duration
        self._charged_ns = now_ns
        least = None if account is None else account.avt
        if self._by_avt and (least is None or self._by_avt[0][0] < least):
            least = self._by_avt[0][0]
        if least is not None and least > self.svt:
            self.svt = least

    # --- warp ------------------------------------------------------------------------------------
    def _set_warp(self, account: Account, warped: bool) -> None:
        account.is_warped = warped
        account.warped_ns = 0
        account.evt = account.avt
        if warped:
            account.evt -= account.params.warp_value_ns * SCALE
            account.stats.warps += 1

    def _fall_asleep(self, account: Account, now_ns: int) -> None:
        """Nothing needs to be watched for it until it wakes."""
        account.asleep_since_ns = now_ns
        if account.unwarped_until_ns is not None:
            _discard(self._unwarping, (account.unwarped_until_ns, account.domid))

    def _regain_warp(self, account: Account, now_ns: int) -> None:
        """After a sleep: warped again, with the whole limit if it was not warped long enough."""
        params = account.params
        account.evt = account.avt
        if not (params.warp and params.warp_value_ns):
            return
        if account.unwarped_until_ns is not None:
            if now_ns < account.unwarped_until_ns:
                insort(self._unwarping, (account.unwarped_until_ns, account.domid))
                return
            account.unwarped_until_ns = None
            self._set_warp(account, True)
        elif now_ns - account.asleep_since_ns >= params.unwarp_ns:
            self._set_warp(account, True)
        else:
            account.evt -= params.warp_value_ns * SCALE

    def _end_warps(self, now_ns: int) -> None:
        """Unwarp who had its limit; warp again who was unwarped long enough."""
        running = self._running
        if running is not None and running.is_warped:
            limit_ns = running.params.warp_limit_ns
            if limit_ns and running.warped_ns >= limit_ns:
                self._unwarp(running, now_ns)
        while self._unwarping and self._unwarping[0][0] <= now_ns:
            account = self._accounts[self._unwarping[0][1]]
            waits = account is not running
            if waits:
                self._dequeue(account)
            self._forget_unwarping(account)
            self._set_warp(account, True)
            if waits:
                self._enqueue(account)

    def _unwarp(self, account: Account, now_ns: int) -> None:
        self._set_warp(account, False)
        account.unwarped_until_ns = now_ns + account.params.unwarp_ns
        if account.params.unwarp_ns:
            insort(self._unwarping, (account.unwarped_until_ns, account.domid))

    def _forget_unwarping(self, account: Account) -> None:
        if account.unwarped_until_ns is not None:
            _discard(self._unwarping, (account.unwarped_until_ns, account.domid))
            account.unwarped_until_ns = None

    # --- the queue -------------------------------------------------------------------------------
    def _enqueue(self, account: Account, *, goes_first: bool = False) -> None:
        self._order += 1
        account.order = -self._order if goes_first else self._order
        insort(self._by_evt, (account.evt, account.order, account.domid))
        insort(self._by_avt, (account.avt, account.domid))

    def _dequeue(self, account: Account) -> None:
        _discard(self._by_evt, (account.evt, account.order, account.domid))
        _discard(self._by_avt, (account.avt, account.domid))


def _discard(items: list[_Item], item: _Item) -> None:
    at = bisect_left(items, item)
    if at < len(items) and items[at] == item:
        del items[at]
