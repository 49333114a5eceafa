"""`ring1 demo`: several guests of different widths on one machine, at the same time.

The first thing a newcomer sees, so it shows what no other command does: domains that share one
CPU in turn, 32-bit and 64-bit, each in the ring its width gives it. It ends by itself.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import click

from cli.exits import Exit
from cli.options import audit_option, seed_option
from cli.tagged_lines import COLOURS, TaggedLines

if TYPE_CHECKING:
    from rich.table import Table

    from hypervisor.api import DomainHandle, Machine

CAST: Final = (
    ("hello", "x86_32"),
    ("hello", "x86_32p"),
    ("hello", "x86_64"),
    ("ticker", "x86_32"),
    ("ticker", "x86_64"),
    ("traps", "x86_32p"),
)
DOMAIN_MIB: Final = 8
TIME_LIMIT_NS: Final = 20 * 10**9  # virtual: a demo never runs for ever, whatever a guest does
COUNTS: Final = {"Calls": "hypercalls", "Traps": "exceptions", "Upcalls": "upcalls"}


@click.command
@audit_option
@seed_option
def command(audit: bool, seed: int) -> int:
    """Boot several built-in guests of different widths together on one machine."""
    from rich.console import Console

    from cli.kernels import find_kernel, read_file
    from cli.run import run
    from cli.session import create_domain, create_machine
    from cli.watch import Watch

    console = Console(highlight=False)
    console.print(f"{len(CAST)} domains take turns on one CPU. Their consoles, as they speak:\n")
    with ExitStack() as stack:
        machine = stack.enter_context(
            create_machine(DOMAIN_MIB * len(CAST), seed=seed, audit=audit)
        )
        casts: list[tuple[DomainHandle, TaggedLines]] = []
        for index, (name, width) in enumerate(CAST):
            kernel = find_kernel(name, width)
            domain = create_domain(machine, kernel, read_file(kernel.path, "kernel"), DOMAIN_MIB)
            tag = f"d{domain.domid} {name:6} {width:7} |"
            lines = TaggedLines(console, tag, COLOURS[index % len(COLOURS)])
            domain.console.on_output(lines.feed)
            casts.append((domain, lines))
        with Watch(machine.interrupt, None) as watch:
            run(machine, time_limit_ns=TIME_LIMIT_NS)
        for _, lines in casts:
            lines.finish()
        console.print()
        console.print(summary(machine, casts))
        if watch.signalled is not None:
            return Exit.INTERRUPTED
        return Exit.MET if all(passed(domain) for domain, _ in casts) else Exit.CRASHED


def passed(domain: DomainHandle) -> bool:
    from cli.verdict import how_it_ended

    ended = how_it_ended(domain)
    return ended is not None and ended[0] is Exit.MET


def summary(machine: Machine, casts: list[tuple[DomainHandle, TaggedLines]]) -> Table:
    """What became of each domain, and how often it needed the hypervisor."""
    from rich.table import Table

    from cli.verdict import how_it_ended, seconds

    table = Table(box=None, pad_edge=False)
    for heading in ("Domain", "Kernel", "Width", "Ran in", "Checks", *COUNTS, "Ended"):
        table.add_column(heading, justify="right" if heading in ("Checks", *COUNTS) else "left")
    for domain, lines in casts:
        _, what = how_it_ended(domain) or (Exit.UNMET, "did not end")
        ring = "ring 3" if domain.width.is_64 else "ring 1"
        style = "green" if passed(domain) else "red"
        stats = domain.stats
        counts = [str(stats[name]) for name in COUNTS.values()]
        about = (f"d{domain.domid}", domain.name, domain.width.value, ring, str(lines.checks))
        table.add_row(*about, *counts, what, style=style)
    table.caption = f"all of it in {seconds(machine)}"
    return table
