"""Options and arguments that several subcommands share: which kernel, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

MIB_MAX: Final = 1 << 20  # a TiB: beyond any host this runs on
VCPUS_MAX: Final = 32  # XEN_LEGACY_MAX_VCPUS: as many as shared_info has room for

F = TypeVar("F", bound=Callable[..., Any])

_KERNEL: Final = (
    click.argument("kernel", metavar="KERNEL"),
    click.option(
        "--memory",
        type=click.IntRange(1, MIB_MAX),
        default=64,
        show_default=True,
        metavar="MIB",
        help="The domain's memory in MiB.",
    ),
    click.option(
        "--vcpus",
        type=click.IntRange(1, VCPUS_MAX),
        default=1,
        show_default=True,
        metavar="N",
        help="The domain's virtual CPUs.",
    ),
    click.option(
        "--ramdisk", type=click.Path(path_type=Path), metavar="FILE", help="A ramdisk (initrd)."
    ),
    click.option("--cmdline", default="", metavar="TEXT", help="The kernel's command line."),
    click.option(
        "--width",
        type=click.Choice(["auto", "x86_32", "x86_32p", "x86_64"]),
        default="auto",
        show_default=True,
        help="The guest's width. auto: what the image says.",
    ),
)


#: Two that every command with a machine has.
audit_option: Final = click.option(
    "--audit",
    is_flag=True,
    help="Recompute every frame's counts from the page tables, again and again (slow).",
)
seed_option: Final = click.option(
    "--seed", type=click.IntRange(0), default=0, help="Scatters the machine's frames."
)


def kernel_options(command: F) -> F:
    """KERNEL, and what the domain that runs it is given."""
    for option in reversed(_KERNEL):
        command = option(command)
    return command
