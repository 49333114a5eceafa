"""`ring1 trace show FILE`: a trace as a table, filtered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click

from cli.exits import Refusal

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are wanted; an empty condition lets all through."""

    domains: frozenset[int]
    kinds: frozenset[str]
    pattern: re.Pattern[str] | None

    def __call__(self, row: Row) -> bool:
        return (
            (not self.domains or row.get("dom") in self.domains)
            and (not self.kinds or row.get("kind") in self.kinds)
            and (self.pattern is None or self.pattern.search(as_text(row)) is not None)
        )


@click.group(name="trace")
def command() -> None:
    """Read traces that `ring1 boot --trace` wrote."""


@command.command
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--domain", "domains", type=int, multiple=True, metavar="ID", help="Only this domain's."
)
@click.option("--kind", "kinds", multiple=True, help="Only this kind's: hypercall, exception, ...")
@click.option("--grep", metavar="REGEX", help="Only entries whose line has a match.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N entries.")
@click.option("--json", "as_json", is_flag=True, help="The entries' own lines instead of a table.")
def show(
    file: Path,
    domains: tuple[int, ...],
    kinds: tuple[str, ...],
    grep: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show the entries of the trace FILE."""
    from hypervisor.trace.jsonl import TraceError, read_trace

    wanted = Filter(frozenset(domains), frozenset(kinds), compiled(grep))
    try:
        head, rows = read_trace(file)
        chosen = islice(filter(wanted, rows), limit)
        if as_json:
            for row in chosen:
                click.echo(json.dumps(row, separators=(",", ":")))
        else:
            print_table(head, chosen)
    except TraceError as error:
        raise Refusal(str(error)) from error
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        reason = (error.strerror or str(error)).lower()
        raise Refusal(f"cannot read the trace {str(file)!r}: {reason}") from error


def compiled(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise Refusal(f"'{text}' is not a regular expression: {error}") from error


def print_table(head: Row, rows: Iterator[Row]) -> None:
    """The entries in columns, and how many there were."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False)
    table.add_column("Virtual s", justify="right")
    table.add_column("Vcpu")
    table.add_column("Kind")
    table.add_column("RIP", justify="right")
    table.add_column("What happened", overflow="fold")
    for row in rows:
        refused = "why" in row
        table.add_row(*columns(row), style="red" if refused else "")
    constants = ", ".join(f"{key} {value}" for key, value in head.items() if key != "format")
    console.print(f"{head['format']}: {constants}", style="dim", highlight=False)
    console.print(table)
    console.print(f"{table.row_count} entries", style="dim", highlight=False)


def columns(row: Row) -> tuple[str, str, str, str, str]:
    """One entry as the table's cells. Nothing in a trace is trusted to be there."""
    from rich.markup import escape

    seconds = f"{row.get('ps', 0) / 1e12:.9f}"
    vcpu = f"d{row.get('dom', '?')}v{row.get('vcpu', '?')}"
    return (
        seconds,
        vcpu,
        escape(str(row.get("kind", ""))),
        escape(str(row.get("rip", ""))),
        escape(as_text(row)),
    )


def as_text(row: Row) -> str:
    """`event_channel_op(0x4, 0xc0004f20) = 0x0`, and the reason of a refusal."""
    shown = [str(arg) for arg in row.get("args", ())]
    if "op" in row:
        shown[:1] = [str(row["op"])]
    args = ", ".join(shown)
    text = f"{row.get('name') or row.get('kind', '')}({args})"
    if "result" in row:
        text += f" = {row['result']}"
    if "why" in row:
        text += f"  [{row['why']}]"
    return text
