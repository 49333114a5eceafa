"""`ring1 guests`: what can be booted without having a kernel at hand."""

from __future__ import annotations

import json

import click


@click.command
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def command(as_json: bool) -> None:
    """List the built-in guest kernels; `ring1 boot NAME` boots one."""
    from guests import built_guests

    found = built_guests()
    if as_json:
        rows = [
            {"name": g.name, "summary": g.summary, "widths": list(g.widths)} for g in found.values()
        ]
        click.echo(json.dumps(rows, indent=2))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("Name", "What it does", "Widths", box=None, pad_edge=False)
    for guest in found.values():
        table.add_row(guest.name, guest.summary, " ".join(guest.widths))
    Console().print(table)
