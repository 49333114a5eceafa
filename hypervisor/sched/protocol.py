"""What the VMM asks of a scheduling policy: the one seam between mechanism and policy.

A policy serves one physical CPU: it knows which vCPUs can run there, chooses, and keeps accounts by
domain. It is plain data, acts only when called, and reads no clock: each call says what time it is,
in ns of the CPU's virtual time, never less than at the call before. So a policy can be driven by a
test, saved and compared.

The VMM asks `pick` only when something calls for a decision: what `pick` granted last is used up,
whoever runs stopped, or a call answered that it should give way. How often the machine is looked at
must not show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hypervisor.domain.domain import Vcpu
from hypervisor.sched.params import SchedParams


@dataclass(slots=True)
class SchedStats:
    """What a domain got and how, on one physical CPU."""

    cpu_ns: int = 0  # it ran, all its vCPUs together
    turns: int = 0  # times it was chosen after another domain, or after nobody
    preemptions: int = 0  # times another was chosen although it could have gone on
    warps: int = 0  # times it began to run warped


class Scheduler(Protocol):
    """A policy at work on one physical CPU."""

    @property
    def least_turn_ns(self) -> int:
        """How long a domain runs at least when only time ends its turn."""

    def add_domain(self, domid: int, params: SchedParams, now_ns: int) -> None:
        """Keep an account for `domid`; none of its vCPUs can run yet."""

    def remove_domain(self, domid: int, now_ns: int) -> None:
        """Forget `domid` and its vCPUs."""

    def adjust(self, domid: int, params: SchedParams, now_ns: int) -> bool:
        """`domid` has other parameters from now on; whether to `pick` again."""

    def wake(self, vcpu: Vcpu, now_ns: int) -> bool:
        """`vcpu` can run from now on, which may be no news; whether to `pick` again."""

    def sleep(self, vcpu: Vcpu, now_ns: int) -> bool:
        """`vcpu` cannot run any more; whether to `pick` again, because it was the one picked."""

    def yield_(self, vcpu: Vcpu, now_ns: int) -> bool:
        """`vcpu` gives away what is left of its turn; whether to `pick` again."""

    def pick(self, now_ns: int) -> tuple[Vcpu, int] | None:
        """Who runs now and for how many ns at most, None when nobody can.

        Whoever was picked last has run until now.
        """

    def goes_on_ns(self, now_ns: int) -> int | None:
        """For how many ns at most whoever was picked last may go on, None if `pick` is to say.

        Asked after a call that said so, in the middle of the guest's run: a stop is dear, and most
        wake-ups only make a turn shorter.
        """

    def next_event_ns(self) -> int | None:
        """When to `pick` again although nobody can run at present; None when nothing is due."""

    def charge(self, now_ns: int) -> None:
        """Bring the accounts up to date: whoever was picked last has run until now."""

    def params(self, domid: int) -> SchedParams:
        """What `domid` is promised at present."""

    def stats(self, domid: int) -> SchedStats:
        """What `domid` got up to the last charge."""
