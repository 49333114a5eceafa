"""A wake-up that takes nobody's place: who runs goes on, and the allowance is whole again."""

from __future__ import annotations

from hypervisor.abi.width import Width
from hypervisor.domain.domain import Vcpu
from hypervisor.sched.bvt import Bvt
from hypervisor.sched.params import DEFAULT_PARAMS, SchedSettings

MS = 1_000_000
C = 5 * MS


def one_runs_and_another_wakes() -> tuple[Bvt, Vcpu, Vcpu]:
    """At 0 the first runs, as nobody else can; the second wakes then, and is not ahead of it."""
    policy = Bvt(SchedSettings(ctx_allow_ns=C, mcu_ns=MS // 10))
    first, second = (Vcpu(domid, 0, Width.X86_64, 0) for domid in (1, 2))
    for vcpu in (first, second):
        policy.add_domain(vcpu.domid, DEFAULT_PARAMS, 0)
    policy.wake(first, 0)
    assert policy.pick(0) == (first, 10 * C)
    policy.wake(second, 0)
    return policy, first, second


def test_who_runs_goes_on_for_the_allowance() -> None:
    policy, _, _ = one_runs_and_another_wakes()
    assert policy.goes_on_ns(0) == C


def test_a_choice_in_the_middle_of_it_keeps_who_runs() -> None:
    policy, first, second = one_runs_and_another_wakes()
    policy.goes_on_ns(0)
    policy.adjust(second.domid, DEFAULT_PARAMS, 2 * MS)  # calls for a choice
    assert policy.pick(2 * MS) == (first, C - 2 * MS)


def test_who_yielded_is_for_pick_to_judge() -> None:
    policy, first, _ = one_runs_and_another_wakes()
    policy.yield_(first, 0)
    assert policy.goes_on_ns(0) is None


def test_nobody_goes_on_where_nobody_runs() -> None:
    policy, first, _ = one_runs_and_another_wakes()
    policy.sleep(first, 0)
    assert policy.goes_on_ns(0) is None
