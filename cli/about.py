"""`ring1 about`: the engine, the guest widths, and which hypercalls are here.

Printed from the dispatch tables themselves, so it cannot claim what is not there.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Final

import click

from cli.exits import Refusal, version

if TYPE_CHECKING:
    from rich.table import Table

    from hypervisor.hypercalls import CoverageRow

NAMED_GAPS: Final = 3  # so many missing operations are named in the summary


@click.command
@click.option("--hypercall", metavar="NAME", help="Every operation of one hypercall.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def command(hypercall: str | None, as_json: bool) -> None:
    """Say what engine, guest widths and hypercalls are here."""
    from hypervisor.hypercalls import coverage

    rows = coverage()
    if hypercall is not None:
        rows = [row for row in rows if row.hypercall.lower() == hypercall.lower()]
        if not rows:
            raise Refusal(f"no hypercall is called {hypercall!r}; `ring1 about` lists them")
    facts = engine_facts()
    if as_json:
        click.echo(json.dumps({**facts, "hypercalls": [asdict(row) for row in rows]}, indent=2))
        return
    show(facts, rows, detail=hypercall is not None)


def engine_facts() -> dict[str, str]:
    """What runs the guests, as one short text for each subject."""
    from hypervisor.abi.width import Width
    from hypervisor.machine import describe_engine

    return {
        "ring1": version("ring1"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **describe_engine(),
        "guest widths": ", ".join(width.value for width in Width),
    }


def show(facts: dict[str, str], rows: Sequence[CoverageRow], *, detail: bool) -> None:
    from rich.console import Console

    console = Console()
    if not detail:
        for subject, text in facts.items():
            console.print(f"{subject:14} {text}", highlight=False)
        console.print()
    console.print(operations(rows) if detail else summary(rows))


def summary(rows: Sequence[CoverageRow]) -> Table:
    """One line for each hypercall: how many of its operations are here, or why it is not."""
    from rich.table import Table

    table = Table("Nr", "Hypercall", "Here", "What is not, and why", box=None, pad_edge=False)
    for name, group in groupby(rows, lambda row: row.hypercall):
        whole, *operations = group  # the hypercall itself comes first
        present = sum(row.present for row in operations)
        gaps = [row for row in operations if not row.present]
        reasons = {row.reason for row in gaps}
        if not whole.present:
            here, missing = "no", whole.reason
        elif not operations:
            here, missing = "yes", ""
        else:
            here = f"{present} of {len(operations)}"
            missing = _list(gaps, reasons, name)
        style = "" if whole.present else "dim"
        table.add_row(str(whole.number), name.lower(), here, missing, style=style)
    return table


def _list(gaps: Sequence[CoverageRow], reasons: set[str], name: str) -> str:
    """What is missing of one hypercall, as far as it fits a line."""
    if len(reasons) <= 1 and len(gaps) <= NAMED_GAPS:
        names = ", ".join(row.subop.lower() for row in gaps)
        return f"{names}: {reasons.pop()}" if reasons else ""
    return f"see --hypercall {name.lower()}"


def operations(rows: Sequence[CoverageRow]) -> Table:
    """One line for each operation."""
    from rich.table import Table

    table = Table("Nr", "Operation", "Here", "Why not", box=None, pad_edge=False)
    for row in rows:
        name = f"  {row.subop.lower()}" if row.subop else row.hypercall.lower()
        here = "yes" if row.present else "no"
        style = "" if row.present else "dim"
        table.add_row(str(row.number), name, here, row.reason, style=style)
    return table
