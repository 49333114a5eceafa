"""Policies by name, and the machine that is told one."""

from __future__ import annotations

from typing import Any

import pytest

from guests import guest_path
from hypervisor.api import DomainState, Machine, SchedParams, SchedParamsError
from hypervisor.sched.policies import POLICIES
from tests.support.sched_board import MS, SECOND


@pytest.mark.parametrize("scheduler", POLICIES)
def test_guests_run_under_every_policy(scheduler: str) -> None:
    with Machine(memory_mib=64, scheduler=scheduler, ps_per_byte=2_000) as machine:
        doms = [
            machine.create(guest_path("spinner", width), memory_mib=16, cmdline="ms=40")
            for width in ("x86_32", "x86_64")
        ]
        machine.run(time_limit_ns=SECOND)
        assert [dom.state for dom in doms] == [DomainState.SHUTDOWN] * 2


def test_credit_s_cap_leaves_the_machine_idle() -> None:
    with Machine(memory_mib=48, scheduler="credit", ps_per_byte=20_000) as machine:
        dom = machine.create(
            guest_path("spinner", "x86_64"), memory_mib=16, sched=SchedParams(cap_percent=20)
        )
        machine.run(time_limit_ns=3 * SECOND)
        assert 0.18 < dom.cpu_time_ns / machine.now_ns < 0.22


def test_share_follows_the_weight_that_is_set_while_it_runs() -> None:
    with Machine(memory_mib=64, ps_per_byte=20_000) as machine:
        one, two = (
            machine.create(guest_path("spinner", "x86_64"), memory_mib=16) for _ in range(2)
        )
        machine.run(time_limit_ns=SECOND)
        before = one.cpu_time_ns, two.cpu_time_ns
        assert abs(before[0] - before[1]) < 20 * MS
        one.set_sched(SchedParams(weight=3))
        machine.run(time_limit_ns=3 * SECOND)
        got = one.cpu_time_ns - before[0], two.cpu_time_ns - before[1]
        assert 2.9 < got[0] / got[1] < 3.1
        assert one.sched.weight == 3
        assert one.sched_stats.turns > 10 < one.sched_stats.preemptions


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"scheduler": "sedf"}, "no scheduler is called 'sedf': bvt, bvt-xen, credit, rr"),
        ({"mcu_us": 0}, "mcu_ns is 0: it lies between 1 and 4611686018427387904"),
        (
            {"switch_cost_ns": 5 * MS},
            "switch_cost_ns is 5000000: it lies between 0 and 4999999, "
            "less than a turn of this scheduler",
        ),
    ],
)
def test_machine_that_cannot_be_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SchedParamsError) as refusal:
        Machine(memory_mib=32, **arguments)
    assert str(refusal.value) == said
