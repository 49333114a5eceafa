"""The policies by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypervisor.sched.bvt import Bvt
from hypervisor.sched.bvt_xen import BvtXen
from hypervisor.sched.credit import Credit
from hypervisor.sched.params import SchedParamsError, SchedSettings
from hypervisor.sched.protocol import Scheduler
from hypervisor.sched.round_robin import RoundRobin

DEFAULT_POLICY: Final = "bvt"

POLICIES: Final[dict[str, Callable[[SchedSettings], Scheduler]]] = {
    "bvt": Bvt,  # as its authors define it
    "bvt-xen": BvtXen,  # as Xen 2 and 3 had it
    "credit": Credit,  # what Xen had next
    "rr": lambda settings: RoundRobin(),
}


def make_scheduler(name: str, settings: SchedSettings) -> Scheduler:
    """The policy called `name`, for one physical CPU. Raises SchedParamsError if there is none."""
    if name not in POLICIES:
        raise SchedParamsError(f"no scheduler is called {name!r}: {', '.join(POLICIES)}")
    return POLICIES[name](settings)
