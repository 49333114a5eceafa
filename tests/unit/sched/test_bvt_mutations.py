"""The experiments can fail: each rule of BVT is missed by one of them when it is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hypervisor.domain.domain import Vcpu
from hypervisor.sched.bvt import SCALE, Account, Bvt
from hypervisor.sched.params import MIN_CTX_ALLOW_NS, SchedSettings
from tests.support.bvt_experiments import EXPERIMENTS


class SleepersCatchUp(Bvt):
    """Scheduler virtual time is not looked at when a domain wakes."""

    def wake(self, vcpu: Vcpu, now_ns: int) -> bool:
        account = self.account(vcpu.domid)
        before = account.avt
        pick_again = super().wake(vcpu, now_ns)
        if account is not self._running:
            self._dequeue(account)
            account.evt -= account.avt - before
            account.avt = before
            self._enqueue(account)
        return pick_again


class NoAllowance(Bvt):
    """Whoever has the least E runs, or nearly."""

    def __init__(self, settings: SchedSettings) -> None:
        super().__init__(SchedSettings(MIN_CTX_ALLOW_NS, settings.mcu_ns))


class AllowanceHoldsAgainstTheWoken(Bvt):
    """C is granted against everybody."""

    def _goes_on(self, running: Account) -> bool:
        self._has_woken = None
        return super()._goes_on(running)


class AllowanceInVirtualTime(Bvt):
    """C is not divided by the weight."""

    def _goes_on(self, running: Account) -> bool:
        allowance = self.settings.ctx_allow_ns * SCALE
        return not self._by_evt or running.evt - self._by_evt[0][0] < allowance

    def _turn_ns(self, account: Account) -> int:
        return self.settings.mcu_ns


class WarpWithoutLimit(Bvt):
    """Warped once, warped for ever."""

    def _unwarp(self, account: Account, now_ns: int) -> None:
        account.warped_ns = 0


class WarpWithoutUnwarpTime(Bvt):
    """Who had its limit may warp again at once."""

    def _unwarp(self, account: Account, now_ns: int) -> None:
        self._set_warp(account, True)


class NoWarp(Bvt):
    """Nobody is preferred."""

    def _set_warp(self, account: Account, warped: bool) -> None:
        super()._set_warp(account, False)

    def _regain_warp(self, account: Account, now_ns: int) -> None:
        account.evt = account.avt


class ChargesWrongUnit(Bvt):
    """A advances by ns where it is counted in parts of them."""

    def charge(self, now_ns: int) -> None:
        running = self._running
        before = 0 if running is None else running.avt
        super().charge(now_ns)
        if running is not None:
            running.avt = running.evt = before + (running.avt - before) // SCALE


class ForgetsWeights(Bvt):
    """A advances as if all weights were 1."""

    def charge(self, now_ns: int) -> None:
        if self._running is not None:
            self._running.advance = self.settings.mcu_ns * SCALE
        super().charge(now_ns)


class RoundsUp(Bvt):
    """A unit that was begun is charged whole whenever another domain gets the CPU (as in Xen)."""

    def _start(self, account: Account, before: Account | None) -> None:
        if before is not None and before is not account and before.used_ns and before.ready:
            self._dequeue(before)
            before.used_ns = 0
            before.avt += before.advance
            before.evt += before.advance
            self._enqueue(before)
        super()._start(account, before)


class RoundsDown(Bvt):
    """A unit that was begun is forgotten when another domain gets the CPU."""

    def _start(self, account: Account, before: Account | None) -> None:
        if before is not None:
            before.used_ns = 0
        super()._start(account, before)


MISSED_BY: dict[type[Bvt], str] = {
    SleepersCatchUp: "T3 sleeper",
    NoAllowance: "T1 two spinners",
    AllowanceHoldsAgainstTheWoken: "T7 echo",
    AllowanceInVirtualTime: "T1 two spinners",
    WarpWithoutLimit: "T5 endless loop",
    WarpWithoutUnwarpTime: "T5 endless loop",
    NoWarp: "T4 deadlines",
    ChargesWrongUnit: "T2 weights 1 to 8",
    ForgetsWeights: "T2 weights 1 to 8",
    RoundsUp: "interruptions",
    RoundsDown: "interruptions",
}


@pytest.mark.parametrize("mutant", MISSED_BY, ids=lambda mutant: mutant.__name__)
def test_experiment_misses_the_rule_that_is_gone(mutant: Callable[[SchedSettings], Bvt]) -> None:
    assert isinstance(mutant, type)
    with pytest.raises(AssertionError):
        EXPERIMENTS[MISSED_BY[mutant]](mutant)
