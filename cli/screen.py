"""What `ring1 run` shows: a screen while it runs, and a table when it is over.

Both are made from an `Ensemble` at one moment and know nothing of terminals but their size, so that
they can be looked at in tests. States are words and shares are lengths: colour only repeats them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.ensemble import Ensemble, Row

EVENT_LINES: Final = 4
FRAME_LINES: Final = 6  # of the screen: title, headings, what is between, the last line
BAR: Final = 10  # characters that 100% of a CPU has
NARROW: Final = 100  # columns below which less is told
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_STYLES: Final = {"running": "bold cyan", "waiting": "yellow", "asleep": "dim", "paused": "dim"}


def screen(ensemble: Ensemble, width: int, height: int) -> RenderableType:
    """The live view, as large as the terminal at most."""
    rows = ensemble.rows()
    nr_shown = max(1, height - FRAME_LINES - EVENT_LINES)
    shown = list(zip(rows, ensemble.actors, strict=True))[:nr_shown]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), expand=True)
    wide = width >= NARROW
    table.add_column("Domain", no_wrap=True, max_width=18 if wide else 12)
    table.add_column("Wt", justify="right")
    table.add_column("State", no_wrap=True, min_width=7, max_width=24 if wide else 11)
    table.add_column("Share", no_wrap=True, min_width=BAR)
    table.add_column("", justify="right", no_wrap=True, min_width=6)
    if wide:
        table.add_column("Due", justify="right", no_wrap=True)
        table.add_column("CPU time", justify="right", no_wrap=True)
    table.add_column("Console", no_wrap=True, ratio=1, overflow="ellipsis")
    for row, actor in shown:
        wide_only = (f"{100 * row.due:.1f}%", milliseconds(row.cpu_ns)) if wide else ()
        table.add_row(
            row.name,
            str(row.weight),
            Text(row.state, style=_STYLES.get(row.state, "")),
            Text(bar(row.share), style="cyan"),
            f"{100 * row.share:.1f}%",
            *wide_only,
            Text(actor.last_line, style="dim"),
        )
    hidden = len(rows) - len(shown)
    parts: list[RenderableType] = [_title(ensemble, width), table]
    if hidden:
        parts.append(Text(f"... and {hidden} more", style="dim"))
    for time_ns, what in list(ensemble.events)[-(EVENT_LINES - bool(hidden)) :]:
        parts.append(Text(f"{milliseconds(time_ns):>14}  {what}", no_wrap=True))
    parts.append(Text("^C ends the run", style="dim"))
    return Group(*parts)


def _title(ensemble: Ensemble, width: int) -> Text:
    spec = ensemble.spec
    now = milliseconds(ensemble.machine.now_ns)
    until = "" if spec.until_ns is None else f" of {milliseconds(spec.until_ns)}"
    facts = f"{now}{until}   {spec.machine.scheduler}   on the CPU: {ensemble.on_cpu or 'nobody'}"
    text = Text(no_wrap=True, overflow="ellipsis")
    if spec.title and len(spec.title) + len(facts) + 3 <= width:
        text.append(spec.title + "   ", style="bold")
    return text.append(facts)


def bar(share: float) -> str:
    """A share of one CPU as a length, to an eighth of a character."""
    eighths = round(max(0.0, min(1.0, share)) * BAR * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(BAR)


def milliseconds(time_ns: int) -> str:
    """A time for people: ms below ten seconds, seconds from there on."""
    return f"{time_ns / 1e6:.1f} ms" if time_ns < 10**10 else f"{time_ns / 1e9:.2f} s"


def summary(rows: Sequence[Row], now_ns: int) -> Table:
    """What every domain had, and what became of it."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Domain", no_wrap=True)
    for heading in (
        "Wt", "CPU time", "Share", "Due", "Switches", "Wake-ups", "Upcalls", "Calls",
    ):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("In the end", no_wrap=True, overflow="fold")
    for row in rows:
        again = f", restarted {_times(row.restarts)}" if row.restarts else ""
        table.add_row(
            row.name,
            str(row.weight),
            milliseconds(row.cpu_ns),
            f"{100 * row.share:.1f}%",
            f"{100 * row.due:.1f}%",
            str(row.switches),
            str(row.wakeups),
            str(row.upcalls),
            str(row.hypercalls),
            row.state + again,
        )
    idle = 1 - sum(row.share for row in rows)
    table.caption = f"in {milliseconds(now_ns)} of virtual time, {100 * max(0.0, idle):.1f}% idle"
    table.caption_justify = "left"
    return table


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
