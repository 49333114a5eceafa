"""`ring1 run FILE.toml`: several domains together, to be watched, to an end and a summary.

On a terminal a screen shows who runs now and what each domain has had so far; elsewhere the
consoles' lines come as they are said, each behind its domain's name. The machine is the same in
both: looking at it is a kick of the CPU, which changes nothing that a guest could see.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cli.exits import Exit, Refusal

if TYPE_CHECKING:
    from rich.console import Console

    from cli.ensemble import Ensemble
    from cli.watch import Watch
    from hypervisor.api import RunEnd

REFRESH_S: Final = 0.125


@click.command
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.toml")
@click.option("--until", type=click.FloatRange(0, min_open=True), metavar="MS",
              help="End after so much virtual time, whatever the file says.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="S",
              help="End the run after S seconds of the host's time.")  # fmt: skip
@click.option("--gantt", type=click.Path(path_type=Path), metavar="FILE.svg",
              help="Draw who ran when.")  # fmt: skip
@click.option("--trace", type=click.Path(path_type=Path), metavar="FILE",
              help="Write one JSON object for each entry into the hypervisor.")  # fmt: skip
@click.option("--plain", is_flag=True, help="No live screen, also on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Nothing but a JSON object at the end.")
def command(
    file: Path,
    until: float | None,
    timeout: float | None,
    gantt: Path | None,
    trace: Path | None,
    plain: bool,
    as_json: bool,
) -> int:
    r"""Run the domains that FILE.toml describes on one machine, and say what each had of it.

    docs/running.md has the keys of the file; samples/ has files to start from.

    \b
    Exit status:
      0  the run ended as it was to: at its time, or every domain powered off
      1  it ended otherwise: all blocked for ever, or the time-out
      2  bad usage or input; nothing was run
      3  a domain crashed, or a built-in guest reported a failed check
      4  a bug of ring1's own; a report was saved
    """
    from rich.console import Console

    from cli.ensemble import Ensemble
    from cli.tracing import open_trace
    from cli.watch import Watch

    console = Console(highlight=False)
    with ExitStack() as stack:
        ensemble = Ensemble.start(stack, file, records=gantt is not None)
        if until is not None:
            ensemble.spec = replace(ensemble.spec, until_ns=round(until * 1e6))
        if gantt is not None:
            _require_writable(gantt)
        if trace is not None:
            open_trace(stack, ensemble.machine, trace)
        live = console.is_terminal and sys.stdout.isatty() and not plain and not as_json
        with Watch(ensemble.machine.interrupt, timeout) as watch:
            if live:
                run_end = _run_live(ensemble, watch, console)
            else:
                run_end = _run_plain(ensemble, watch, None if as_json else console)
        status, why = ensemble.verdict(run_end, watch)
        _conclude(ensemble, status, why, console, as_json=as_json)
        if gantt is not None:
            _draw(ensemble, gantt)
    return status


def _run_plain(ensemble: Ensemble, watch: Watch, console: Console | None) -> RunEnd:
    """Run, the consoles' lines going to `console` as they come, if there is one."""
    from cli.run import run
    from cli.tagged_lines import COLOURS, TaggedLines

    tagged = []
    if console is not None:
        widest = max(len(actor.handle.name) for actor in ensemble.actors)
        for idx, actor in enumerate(ensemble.actors):
            tag = f"{actor.handle.name:{widest}} |"
            lines = TaggedLines(console, tag, COLOURS[idx % len(COLOURS)])
            actor.handle.console.on_output(lines.feed)
            tagged.append(lines)
    run_end = run(ensemble.machine, time_limit_ns=ensemble.spec.until_ns)
    for lines in tagged:
        lines.finish()
    return run_end


def _run_live(ensemble: Ensemble, watch: Watch, console: Console) -> RunEnd:
    """Run behind a screen that is drawn anew several times a second."""
    from rich.live import Live

    from cli.run import run
    from cli.screen import screen
    from hypervisor.api import RunEnd

    def draw() -> None:
        live.update(screen(ensemble, console.width, console.height), refresh=True)

    with (
        Live(console=console, auto_refresh=False, screen=True) as live,
        _every(REFRESH_S, ensemble.machine.interrupt),
    ):
        while True:
            draw()
            run_end = run(ensemble.machine, time_limit_ns=ensemble.spec.until_ns)
            if run_end is not RunEnd.INTERRUPTED or watch.ended:
                return run_end


@contextmanager
def _every(seconds: float, beat: Callable[[], None]) -> Iterator[None]:
    """Call `beat` again and again, from a thread, while this lasts."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(seconds):
            beat()

    thread = threading.Thread(target=tick, name="ring1 screen", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _conclude(
    ensemble: Ensemble, status: Exit, why: str, console: Console, *, as_json: bool
) -> None:
    from cli import ensemble as ensembles
    from cli.screen import summary

    rows = ensemble.rows()
    if as_json:
        click.echo(json.dumps(ensembles.as_json(ensemble, rows, status, why), indent=2))
        return
    if ensemble.spec.title:
        console.print(f"\n{ensemble.spec.title}", style="bold")
    console.print(summary(rows, ensemble.machine.now_ns))
    click.echo(f"ring1: {why}", err=True)
    for actor in ensemble.actors:
        if actor.handle.crash_report is not None:
            click.echo(f"{actor.handle.name}'s last state:\n{actor.handle.crash_report}", err=True)


def _require_writable(path: Path) -> None:
    """Raise Refusal, before anything has run, if there can be no such file."""
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Refusal(f"cannot write the picture {str(path)!r}: {reason}") from error


def _draw(ensemble: Ensemble, path: Path) -> None:
    from hypervisor.trace.gantt import gantt

    schedule, now_ns = ensemble.schedule, ensemble.machine.now_ns
    if schedule is None or not now_ns:
        return
    schedule.finish(now_ns)
    title = ensemble.spec.title or path.stem
    path.write_text(gantt(schedule.spans, ensemble.names, 0, now_ns, title), encoding="utf-8")
