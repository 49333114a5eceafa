"""`ring1 boot KERNEL`: one domain, its console, and a verdict as the exit status.

Three ways to run it. With `--expect` or `--send` a script talks to the console. On a terminal,
without a script, the user does, in host time. Else the guest runs on without input.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from cli.exits import Refusal
from cli.options import audit_option, kernel_options, seed_option
from cli.ordered import OrderedCommand, in_order

if TYPE_CHECKING:
    from hypervisor.testing.script import Step


@click.command(cls=OrderedCommand)
@kernel_options
@click.option(
    "--expect",
    "expects",
    multiple=True,
    metavar="REGEX",
    help="Wait until the console shows a match. Repeat; interleave with --send.",
)
@click.option(
    "--send",
    "sends",
    multiple=True,
    metavar="TEXT",
    help=r"Type TEXT into the console; C escapes such as \n count.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="End the run after S seconds of the host's time.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="End the run after S seconds of virtual time.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write one JSON object for each entry into the hypervisor.",
)
@click.option(
    "--clock",
    type=click.Choice(["virtual", "host"]),
    help="What time is. virtual: the guest's own work, and repeatable. host: the wall clock. "
    "Default: virtual, but host when a terminal is attached.",
)
@click.option(
    "--digest", is_flag=True, help="Print a SHA-256 over memory and CPU states at the end."
)
@click.option(
    "--inspect",
    "looks",
    multiple=True,
    metavar="WHAT",
    help="Show WHAT of its memory at the end, such as cr2, frames or tables: as `ring1 inspect`.",
)
@audit_option
@seed_option
@click.pass_context
def command(
    ctx: click.Context,
    kernel: str,
    memory: int,
    vcpus: int,
    ramdisk: Path | None,
    cmdline: str,
    width: str,
    expects: tuple[str, ...],
    sends: tuple[str, ...],
    timeout: float | None,
    time_limit: float | None,
    trace: Path | None,
    clock: Literal["virtual", "host"] | None,
    digest: bool,
    looks: tuple[str, ...],
    audit: bool,
    seed: int,
) -> int:
    """Boot KERNEL, a Xen PV kernel's file or a built-in guest's name, and show its console.

    With --expect or --send a script talks to the console, in the order given. Otherwise, on a
    terminal, you do: ^] ends the session. The domain is destroyed at the end.

    \b
    Exit status:
      0  every expectation was met; without any: the guest powered off
      1  an expectation was not met, or the run ended before the guest did
      2  bad usage or input
      3  the domain crashed, or a built-in guest reported a failed check
      4  a bug of ring1's own; a report was saved
    """
    steps = parse_steps(in_order(ctx, {"expects": expects, "sends": sends}))
    attach = not steps and sys.stdin.isatty() and sys.stdout.isatty()

    from cli.looking import show_all, wanted
    from cli.session import Session  # loads the engine: usage errors above need not wait for it
    from cli.verdict import Limits

    asked = wanted(looks)
    limits = Limits(timeout, None if time_limit is None else round(time_limit * 1e9))
    with ExitStack() as stack:
        session = Session.start(
            stack,
            kernel=kernel,
            width=width,
            memory_mib=memory,
            vcpus=vcpus,
            ramdisk=ramdisk,
            cmdline=cmdline,
            clock=clock or ("host" if attach else "virtual"),
            seed=seed,
            audit=audit,
            trace=trace,
        )
        status = session.attach(limits) if attach else session.play(steps, limits)
        if asked:
            session.output.fresh_line()
            show_all(session.domain, asked)
        if digest:
            session.print_digest()
        return status


def parse_steps(typed: Iterable[tuple[str, str]]) -> list[Step]:
    """The script that the options spell. Raises Refusal for one that cannot be understood."""
    from hypervisor.testing.c_escapes import EscapeError
    from hypervisor.testing.script import Expect, ScriptError, Send

    try:
        return [
            Expect.parse(text) if name == "expects" else Send.parse(text) for name, text in typed
        ]
    except (ScriptError, EscapeError) as error:
        raise Refusal(str(error)) from error
