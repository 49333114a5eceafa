"""Round robin: each runnable vCPU in turn."""

from __future__ import annotations

import pytest

from hypervisor.abi.width import Width
from hypervisor.domain.domain import Vcpu
from hypervisor.sched.params import SchedParams
from hypervisor.sched.round_robin import SLICE_NS, RoundRobin


@pytest.fixture
def vcpus() -> list[Vcpu]:
    return [Vcpu(domid, 0, Width.X86_64, 0) for domid in (1, 2, 3)]


@pytest.fixture
def scheduler(vcpus: list[Vcpu]) -> RoundRobin:
    scheduler = RoundRobin()
    for vcpu in vcpus:
        scheduler.add_domain(vcpu.domid, SchedParams(), 0)
        scheduler.wake(vcpu, 0)
    return scheduler


def order(scheduler: RoundRobin, turns: int) -> list[int]:
    """Whose turns they are when each uses up its slice."""
    domids = []
    for _ in range(turns):
        chosen = scheduler.pick(0)
        assert chosen is not None
        domids.append(chosen[0].domid)
        scheduler.yield_(chosen[0], 0)
    return domids


def test_turns_go_round(scheduler: RoundRobin) -> None:
    assert order(scheduler, 7) == [1, 2, 3, 1, 2, 3, 1]


def test_the_same_one_runs_until_its_slice_is_over(
    scheduler: RoundRobin, vcpus: list[Vcpu]
) -> None:
    assert scheduler.pick(0) == (vcpus[0], SLICE_NS)
    assert scheduler.pick(SLICE_NS - 1) == (vcpus[0], 1)
    assert scheduler.pick(SLICE_NS) == (vcpus[1], SLICE_NS)


def test_slice_is_a_millisecond_unless_told_otherwise(vcpus: list[Vcpu]) -> None:
    for scheduler, slice_ns in ((RoundRobin(), 1_000_000), (RoundRobin(5), 5)):
        scheduler.add_domain(1, SchedParams(), 0)
        scheduler.wake(vcpus[0], 0)
        assert scheduler.pick(0) == (vcpus[0], slice_ns)


def test_added_twice_it_runs_once_a_round(scheduler: RoundRobin, vcpus: list[Vcpu]) -> None:
    scheduler.wake(vcpus[0], 0)
    assert order(scheduler, 4) == [1, 2, 3, 1]


def test_removed_it_does_not_run(scheduler: RoundRobin, vcpus: list[Vcpu]) -> None:
    scheduler.sleep(vcpus[1], 0)
    scheduler.sleep(vcpus[1], 0)
    assert order(scheduler, 3) == [1, 3, 1]


def test_woken_it_queues_at_the_end(scheduler: RoundRobin, vcpus: list[Vcpu]) -> None:
    scheduler.sleep(vcpus[0], 0)
    scheduler.wake(vcpus[0], 0)
    assert order(scheduler, 3) == [2, 3, 1]


def test_who_does_not_run_cannot_give_up_its_turn(scheduler: RoundRobin, vcpus: list[Vcpu]) -> None:
    scheduler.yield_(vcpus[2], 0)
    assert order(scheduler, 1) == [1]


def test_nobody_runs_when_nobody_can() -> None:
    assert RoundRobin().pick(0) is None


def test_equal_vcpus_are_not_the_same(vcpus: list[Vcpu]) -> None:
    """A vCPU is compared field by field, but queued by who it is."""
    twin = Vcpu(1, 0, Width.X86_64, 0)
    scheduler = RoundRobin()
    scheduler.add_domain(1, SchedParams(), 0)
    scheduler.wake(vcpus[0], 0)
    scheduler.wake(twin, 0)
    scheduler.sleep(twin, 0)
    chosen = scheduler.pick(0)
    assert chosen is not None
    assert chosen[0] is vcpus[0]


# --- what each domain got -------------------------------------------------------------------------
def test_accounts_say_who_ran_how_long_and_how_often(scheduler: RoundRobin) -> None:
    for turn in range(4):
        scheduler.pick(turn * SLICE_NS)
    scheduler.charge(3 * SLICE_NS + 7)
    first, second = scheduler.stats(1), scheduler.stats(2)
    assert (first.cpu_ns, first.turns, first.preemptions) == (SLICE_NS + 7, 2, 1)
    assert (second.cpu_ns, second.turns, second.preemptions) == (SLICE_NS, 1, 1)


def test_woken_it_asks_for_a_choice_only_when_nobody_runs(vcpus: list[Vcpu]) -> None:
    scheduler = RoundRobin()
    for vcpu in vcpus:
        scheduler.add_domain(vcpu.domid, SchedParams(), 0)
    assert scheduler.wake(vcpus[0], 0)
    scheduler.pick(0)
    assert not scheduler.wake(vcpus[1], 5)


def test_only_who_runs_asks_for_a_choice_when_it_sleeps(
    scheduler: RoundRobin, vcpus: list[Vcpu]
) -> None:
    scheduler.pick(0)
    assert not scheduler.sleep(vcpus[2], 5)
    assert scheduler.sleep(vcpus[0], 5)
    assert scheduler.pick(5) == (vcpus[1], SLICE_NS)


def test_removed_domain_is_forgotten(scheduler: RoundRobin, vcpus: list[Vcpu]) -> None:
    scheduler.pick(0)
    scheduler.remove_domain(1, 5)
    assert scheduler.pick(5) == (vcpus[1], SLICE_NS)
    with pytest.raises(KeyError):
        scheduler.stats(1)


def test_parameters_are_kept_and_change_nothing(scheduler: RoundRobin) -> None:
    assert not scheduler.adjust(2, SchedParams(weight=9), 0)
    assert scheduler.params(2).weight == 9
    assert order(scheduler, 4) == [1, 2, 3, 1]
