"""What events cost: a round trip between two domains, an IPI, a timer tick.

python -m benchmarks.events

The guests are `pingpong`, `smp` and `ticker`. A round trip is two sends and two deliveries: by
upcall that is four entries into the VMM and two switches of the domain on the CPU.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import partial

from benchmarks._harness import RUNS, Report, median, seconds
from guests import guest_path
from hypervisor.abi.width import Width
from hypervisor.api import DomainHandle, Machine

ROUNDS = 5000
TICKS = 2000
BAR_US = 25.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one round trip or tick."""

    us: float
    entries: float  # hypercalls and exceptions
    virtual_ns: float


def pingpong(machine: Machine, one: Width, other: Width, wait: str, rounds: int) -> DomainHandle:
    """Two domains whose ports are connected as soon as the machine runs; the one that counts."""
    common = f"wait={wait} n={rounds}"
    opener = machine.create(
        guest_path("pingpong", one.value),
        name="opener",
        memory_mib=16,
        cmdline=f"role=open peer={len(machine.domains) + 2} {common}",
    )
    machine.run(until=lambda: b"is open to" in opener.console.output)
    found = re.search(rb"^port (\d+) is open", opener.console.output)
    if found is None:
        sys.exit(f"no port was opened:\n{opener.console.output.decode()}")
    return machine.create(
        guest_path("pingpong", other.value),
        name="binder",
        memory_mib=16,
        cmdline=f"role=bind peer={opener.domid} port={int(found[1])} {common}",
    )


def entries(machine: Machine) -> int:
    """All entries into the VMM so far."""
    stats = [dom.stats for dom in machine.domains.values()]
    return sum(each["hypercalls"] + each["exceptions"] + each["emulated"] for each in stats)


def round_trip(one: Width, other: Width, wait: str) -> Cost:
    """The mean of a whole run."""
    with Machine(memory_mib=96) as machine:
        binder = pingpong(machine, one, other, wait, ROUNDS)
        before = entries(machine)
        taken = seconds(machine.run)
        text = binder.console.output.decode()
        said = re.search(r"round trips in (\d+) ns", text)
        if said is None:
            sys.exit(f"pingpong did not finish:\n{text}")
        used = entries(machine) - before
        return Cost(taken / ROUNDS * 1e6, used / ROUNDS, int(said[1]) / ROUNDS)


def tick_us(width: Width) -> float:
    """set_timer_op, block, and the upcall when it is time."""
    with Machine(memory_mib=64) as machine:
        machine.create(
            guest_path("ticker", width.value),
            memory_mib=16,
            cmdline=f"ticks={TICKS} period_ms=1",
        )
        with_ticks = seconds(machine.run)
    with Machine(memory_mib=64) as machine:
        machine.create(guest_path("ticker", width.value), memory_mib=16, cmdline="ticks=0")
        without = seconds(machine.run)
    return (with_ticks - without) / TICKS * 1e6


def main() -> None:
    """Measure all and print the table."""
    report = Report(f"events: medians of {RUNS}")
    pairs = [(Width.X86_64, Width.X86_64), (Width.X86_32, Width.X86_64)]
    for one, other in pairs:
        for wait in ("upcall", "poll"):
            costs = [round_trip(one, other, wait) for _ in range(RUNS)]
            middle = sorted(costs, key=lambda cost: cost.us)[RUNS // 2]
            name = f"round trip, {one.value} to {other.value}, by {wait}"
            report.us(name, middle.us, f"{BAR_US:.0f} us")
            report.figure("  entries into the VMM", f"{middle.entries:.1f}")
            report.figure("  virtual time", f"{middle.virtual_ns:.0f} ns")
    for width in (Width.X86_32, Width.X86_64):
        report.us(
            f"timer tick with its line of text, {width.value}", median(partial(tick_us, width))
        )
    report.show()


if __name__ == "__main__":
    main()
