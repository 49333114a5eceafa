"""BVT passes the experiments by which it is known."""

from __future__ import annotations

import pytest

from hypervisor.sched.bvt import Bvt
from hypervisor.sched.params import SchedParams, SchedSettings
from tests.support.bvt_experiments import EXPERIMENTS
from tests.support.sched_board import MS, SchedBoard


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_bvt_passes(experiment: str) -> None:
    EXPERIMENTS[experiment](Bvt)


def runs_from(svt_ns: int) -> list[tuple[int, int]]:
    """Who runs when, in a mix, with scheduler virtual time beginning at `svt_ns`."""
    machine = SchedBoard(Bvt(SchedSettings(), svt_ns=svt_ns))
    warp = SchedParams(warp=True, warp_value_ns=20 * MS, warp_limit_ns=3 * MS, unwarp_ns=40 * MS)
    for domid, weight in ((1, 1), (2, 3), (3, 7)):
        machine.spinner(domid, SchedParams(weight=weight))
    machine.periodic(4, 33 * MS, 8 * MS, warp)
    machine.run(2_000 * MS)
    return machine.runs


def test_schedule_does_not_depend_on_where_virtual_time_begins() -> None:
    """T8: Xen's times were 32 bits wide and wrapped; these do not."""
    at_zero = runs_from(0)
    assert len(at_zero) > 250
    assert runs_from(0xEFFF_FFF0) == at_zero
    assert runs_from(1 << 64) == at_zero
