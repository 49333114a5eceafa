"""`ring1 step KERNEL`: a guest under the microscope, one line of input at a time.

The prompt stands between two instructions of the guest; each command moves the guest or shows
something. Without a terminal it reads its commands from stdin, so that a session can be a test.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from cli.exits import Exit
from cli.options import audit_option, kernel_options, seed_option

PROMPT: Final = "(ring1) "


@click.command
@kernel_options
@audit_option
@seed_option
def command(
    kernel: str,
    memory: int,
    vcpus: int,
    ramdisk: Path | None,
    cmdline: str,
    width: str,
    audit: bool,
    seed: int,
) -> int:
    """Boot KERNEL and step it: by instruction, to the next hypercall, to the next trap.

    Type `help` at the prompt.
    """
    from cli.session import Session
    from cli.stepper import Stepper

    with ExitStack() as stack:
        session = Session.start(
            stack,
            kernel=kernel,
            width=width,
            memory_mib=memory,
            vcpus=vcpus,
            ramdisk=ramdisk,
            cmdline=cmdline,
            seed=seed,
            audit=audit,
        )
        stepper = Stepper(session.machine, session.domain, session.output)
        stepper.show_position()
        while (line := read_line()) is not None and stepper.obey(line):
            pass
        return Exit.MET


def read_line() -> str | None:
    """The next command; None at the end of the input."""
    try:
        if sys.stdin.isatty():
            import readline  # noqa: F401 - importing it gives input() history and editing

            return input(PROMPT)
        line = sys.stdin.readline()
    except EOFError:
        return None
    if line:
        click.echo(f"{PROMPT}{line.rstrip()}")  # so that what is printed can be read by itself
    return line or None
