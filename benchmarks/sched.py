"""The scheduler and the machine of 128 domains: `python -m benchmarks.sched`.

What is deterministic here (shares, losses, latencies: virtual time) is held to bounds by
tests/real/test_many_domains.py as well. Creation, memory and host time of a switch depend on the
host, and are only printed.
"""

from __future__ import annotations

import resource
import time
from typing import Final

from click import echo

from benchmarks.many_domains import (
    MEMORY_MIB,
    NR_DOMAINS,
    SECOND,
    add_spinners,
    machine_of,
    measure_latency,
    measure_loss,
    measure_shares,
)
from hypervisor.abi.width import Width
from hypervisor.domain.domain import Vcpu
from hypervisor.sched.params import DEFAULT_PARAMS, SchedSettings
from hypervisor.sched.policies import POLICIES, make_scheduler

_PICKS: Final = 20_000


def pick_us(policy: str, nr_domains: int) -> float:
    """Host time of one decision when so many can run and each turn is used up."""
    scheduler = make_scheduler(policy, SchedSettings())
    for domid in range(1, nr_domains + 1):
        scheduler.add_domain(domid, DEFAULT_PARAMS, 0)
        scheduler.wake(Vcpu(domid, 0, Width.X86_64, 0), 0)
    now = 0
    begin = time.process_time()
    for _ in range(_PICKS):
        chosen = scheduler.pick(now)
        assert chosen is not None
        now += chosen[1]
    return (time.process_time() - begin) / _PICKS * 1e6


def switch_us(nr_domains: int) -> float:
    """Host CPU time of a domain switch: what a run takes with many switches, less with few."""

    def run(nr_domains: int, ctx_allow_us: int) -> tuple[float, int]:
        with machine_of(nr_domains, ctx_allow_us=ctx_allow_us, mcu_us=10) as machine:
            doms = add_spinners(machine, [1] * nr_domains)
            machine.run(time_limit_ns=SECOND)
            before = sum(dom.stats["switches"] for dom in doms)
            begin = time.process_time()
            machine.run(time_limit_ns=3 * SECOND)
            seconds = time.process_time() - begin
            return seconds, sum(dom.stats["switches"] for dom in doms) - before

    often, switches = min(run(nr_domains, 200) for _ in range(3))
    seldom, few = min(run(nr_domains, 20_000) for _ in range(3))
    return (often - seldom) / (switches - few) * 1e6


def creation() -> None:
    """128 domains: how long they take, and what memory the process holds then."""
    with machine_of(NR_DOMAINS) as machine:
        begin = time.process_time()
        doms = add_spinners(machine, [1] * NR_DOMAINS)
        seconds = time.process_time() - begin
        machine.run(time_limit_ns=2 * SECOND)
        rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        size = f"{len(doms)} domains of {MEMORY_MIB} MiB"
        line(f"{size}: created in", f"{seconds:.1f} s", "bar: 8 s")
        bar_mib = NR_DOMAINS * MEMORY_MIB + 300
        line("the process's memory, all of them running", f"{rss_mib} MiB", f"bar: {bar_mib} MiB")


def line(what: str, found: str, beside: str = "") -> None:
    """One row."""
    echo(f"  {what:<58} {found:>12}   {beside}".rstrip())


def main() -> None:
    """Measure and print."""
    echo("Many domains")
    creation()
    for name in POLICIES:
        line(f"a decision among {NR_DOMAINS}, {name}", f"{pick_us(name, NR_DOMAINS):.1f} us")
    for nr_domains in (2, NR_DOMAINS):
        beside = "bar: 8 us"
        line(
            f"a domain switch, {nr_domains} busy domains", f"{switch_us(nr_domains):.1f} us", beside
        )
    echo("Service, by virtual time")
    shares_of("equal weights, C = 5 ms", [1] * NR_DOMAINS, 5_000, 30 * SECOND)
    weights = [1 + number % 8 for number in range(NR_DOMAINS)]
    shares_of("weights 1 to 8, C = 1 ms", weights, 1_000, 30 * SECOND)
    echo("What switching costs, at 375 us a switch")
    for ctx_allow_us, paper in ((5_000, "paper: 7.5%"), (50_000, "paper: almost nothing")):
        loss = measure_loss(ctx_allow_us, NR_DOMAINS, 20 * SECOND)
        line(
            f"{NR_DOMAINS} busy domains, slices of {ctx_allow_us // 1000} ms", f"{loss:.2%}", paper
        )
    echo("How long a domain waits when it is asked, among 127 busy ones")
    for idle, paper in ((True, "paper: 5.4 ms"), (False, "paper: 147 ms")):
        found = measure_latency(idle=idle, nr_busy=NR_DOMAINS - 1, wakes=40, every_us=701_000)
        who = "an idle one" if idle else "a busy one"
        line(f"{who}, on average", f"{found.mean_us / 1000:.1f} ms", paper)
        line(f"{who}, at worst", f"{found.worst_us / 1000:.1f} ms")


def shares_of(what: str, weights: list[int], ctx_allow_us: int, duration_ns: int) -> None:
    """Print how near to their shares the domains are."""
    found = measure_shares(weights, ctx_allow_us, duration_ns)
    line(f"{what}: worst lead, of what BVT allows", f"{found.worst_lead:.0%}", "bar: 100%")
    seconds = duration_ns // SECOND
    line(f"after {seconds} s: worst share", f"{found.worst_error:.2%} off", "bar: 4%, as the paper")
    line("samples", str(found.samples))


if __name__ == "__main__":
    main()
