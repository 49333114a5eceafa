"""A machine of many domains that keep it busy: the paper's section 4.5, on real guests.

Shared by the benchmark, which prints what it finds, and by the tests, which hold it to bounds. The
machine's CPU is made slow (PS_PER_BYTE), so that a virtual second with its thousands of switches
takes about a second of the host's; nothing that is scheduled can tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from guests import guest_path
from hypervisor.api import DomainHandle, Machine, SchedParams
from hypervisor.sched.bvt import SCALE, Bvt

NR_DOMAINS: Final = 128
MEMORY_MIB: Final = 16  # of each
PS_PER_BYTE: Final = 20_000
MS: Final = 1_000_000
SECOND: Final = 1_000_000_000
PAPER_SWITCH_COST_NS: Final = 375_000  # 7.5% of 5 ms


@contextmanager
def machine_of(nr_domains: int, **more: Any) -> Iterator[Machine]:
    """A machine with room for that many."""
    memory_mib = nr_domains * (MEMORY_MIB + 1) + 32
    more.setdefault("ps_per_byte", PS_PER_BYTE)
    with Machine(memory_mib=memory_mib, **more) as machine:
        yield machine


def add_spinners(
    machine: Machine, weights: Sequence[int], cmdline: str = "", width: str = "x86_32p"
) -> list[DomainHandle]:
    """A busy domain for each weight."""
    kernel = guest_path("spinner", width)
    return [
        machine.create(
            kernel, memory_mib=MEMORY_MIB, cmdline=cmdline, sched=SchedParams(weight=weight)
        )
        for weight in weights
    ]


@dataclass
class Shares:
    """What was seen of a run."""

    samples: int  # switches, at each of which the bound was looked at
    worst_lead: float  # the largest lead seen, in parts of what is allowed
    worst_error: float  # at the end: the largest deviation from a domain's share, in parts of it


def measure_shares(
    weights: Sequence[int], ctx_allow_us: int, duration_ns: int, mcu_us: int = 100
) -> Shares:
    """Run spinners of these weights for a while, looking at each switch at who is how far ahead."""
    with machine_of(len(weights), ctx_allow_us=ctx_allow_us, mcu_us=mcu_us) as machine:
        doms = add_spinners(machine, weights)
        _all_have_started(machine, doms)
        watch = _LeadWatch(machine, doms, (ctx_allow_us + mcu_us) * 1000)
        start_ns = machine.now_ns
        machine.run(time_limit_ns=start_ns + duration_ns)
        watch.look()
        got = watch.got_ns()
    total = sum(got.values())
    error = max(
        abs(got[dom.domid] * sum(weights) / (total * weight) - 1)
        for dom, weight in zip(doms, weights, strict=True)
    )
    return Shares(watch.samples, watch.worst, error)


def _all_have_started(machine: Machine, doms: Sequence[DomainHandle]) -> None:
    """Every domain has said that it is busy, and sleeps no more."""
    waiting = list(doms)

    def started() -> bool:
        while waiting and b"busy" in waiting[-1].console.output:
            waiting.pop()
        return not waiting

    machine.run(until=started, time_limit_ns=1000 * SECOND)
    assert started()


class _LeadWatch:
    """At every switch: how far is each ahead of the one that is last, per weight.

    From the actual virtual times at the beginning on, by the service that each got since.
    """

    def __init__(self, machine: Machine, doms: Sequence[DomainHandle], allowed_ns: int) -> None:
        self._doms = [(dom.domid, dom.sched.weight) for dom in doms]
        scheduler = machine.vmm.host.scheduler
        assert isinstance(scheduler, Bvt)
        self._scheduler = scheduler
        self._machine = machine
        self._allowed_ns = allowed_ns
        self._scheduler.charge(machine.now_ns)
        self._start = {domid: self._scheduler.stats(domid).cpu_ns for domid, _ in self._doms}
        self._at = {domid: self._virtual_ns(domid) for domid, _ in self._doms}
        self.samples = 0
        self.worst = 0.0
        machine.vmm.probes.switch = lambda time_ps, domid, vcpu_id: self.look()

    def _virtual_ns(self, domid: int) -> float:
        account = self._scheduler.account(domid)
        return account.avt / SCALE + account.used_ns / account.params.weight

    def got_ns(self) -> dict[int, int]:
        """What each got since the beginning."""
        self._scheduler.charge(self._machine.now_ns)
        stats = self._scheduler.stats
        return {domid: stats(domid).cpu_ns - self._start[domid] for domid, _ in self._doms}

    def look(self) -> None:
        """Sample. A lead is allowed to be (C + unit) / weight of who leads."""
        self.samples += 1
        got = self.got_ns()
        at = {domid: self._at[domid] + got[domid] / weight for domid, weight in self._doms}
        least = min(at.values())
        for domid, weight in self._doms:
            self.worst = max(self.worst, (at[domid] - least) * weight / self._allowed_ns)


def measure_loss(ctx_allow_us: int, nr_domains: int, duration_ns: int) -> float:
    """What part of the time goes into switches, at the paper's cost for each."""
    cost = PAPER_SWITCH_COST_NS
    with machine_of(nr_domains, ctx_allow_us=ctx_allow_us, switch_cost_ns=cost) as machine:
        doms = add_spinners(machine, [1] * nr_domains)
        _all_have_started(machine, doms)
        clock = machine.vmm.cpu.clock
        start_ps, worked_ps = clock.now_ps(), clock.worked_ps()
        machine.run(time_limit_ns=machine.now_ns + duration_ns)
        return 1 - (clock.worked_ps() - worked_ps) / (clock.now_ps() - start_ps)


@dataclass
class Latency:
    """How long a domain waited after its timer, ns."""

    mean_us: int
    worst_us: int


def measure_latency(*, idle: bool, nr_busy: int, wakes: int, every_us: int) -> Latency:
    """A domain with a timer among busy ones, itself idle or as busy as they."""
    with machine_of(nr_busy + 1, switch_cost_ns=PAPER_SWITCH_COST_NS) as machine:
        add_spinners(machine, [1] * nr_busy)
        cmdline = f"every_us={every_us} wakes={wakes} idle={int(idle)}"
        (asked,) = add_spinners(machine, [1], cmdline)
        machine.run(
            until=lambda: b"at worst" in asked.console.output,
            time_limit_ns=(wakes + 5) * (every_us * 1000 + 4 * SECOND),
        )
        said = re.search(rb"(\d+) us late on average, (\d+) us at worst", asked.console.output)
    assert said is not None
    return Latency(int(said[1]), int(said[2]))
