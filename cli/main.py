"""`ring1`: the command, its subcommands by name, and what becomes of whatever went wrong.

The table of subcommands carries each one's line of help, so that `ring1 --help` imports none of
them: the engine takes longer to load than the help takes to read. Every way in which a command can
fail ends here, as one sentence and an exit status (cli.exits), never as a traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

import click

from cli.exits import Exit, Refusal, save_report, version


class Lazy(NamedTuple):
    """Where a subcommand lives, and what the list of commands says about it."""

    module: str  # which has the click command as `command`
    summary: str


COMMANDS: Final = {
    "boot": Lazy("cli.boot", "Boot a kernel and show its console."),
    "demo": Lazy("cli.demo", "Boot several built-in guests of different widths together."),
    "run": Lazy(
        "cli.run_file", "Run the domains that a TOML file describes, and show who had what."
    ),
    "guests": Lazy("cli.guests", "List the built-in guest kernels."),
    "step": Lazy("cli.step", "Boot a kernel and step it, instruction by instruction."),
    "inspect": Lazy("cli.inspect", "Boot a kernel, stop it, and show its page tables and frames."),
    "trace": Lazy("cli.trace", "Read traces that `ring1 boot --trace` wrote."),
    "about": Lazy("cli.about", "Say what engine, guest widths and hypercalls are here."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name].module).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: ring1 boot hello",
)
@click.version_option(version("ring1"), message="ring1 %(version)s")
def ring1() -> None:
    """A Xen-compatible paravirtualizing hypervisor in Python.

    It runs unmodified Xen PV kernels, 32-bit and 64-bit, as an ordinary user, and the same run can
    be repeated, stepped and traced.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status (cli.exits.Exit)."""
    try:
        status = ring1.main(args=args, prog_name="ring1", standalone_mode=False)
        sys.stdout.flush()  # here, so that a closed pipe is noticed where it is handled
    except click.UsageError as error:
        error.show()
        return Exit.USAGE
    except (Refusal, click.ClickException) as error:
        complain(str(error))
        return Exit.USAGE
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted")
        return Exit.INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has gone; click turns that into SystemExit, and leaves by it for
        # nothing else. Python would complain once more at exit, when it flushes stdout; so stdout
        # leads nowhere from here.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        return Exit.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last frame: what arrives here is a bug of ours
        path = save_report(error, sys.argv[1:] if args is None else args)
        complain(
            f"this is a bug in ring1 ({type(error).__name__}: {first_line(error)}); "
            f"the report is in {path}"
        )
        return Exit.BUG
    return status if isinstance(status, int) else Exit.MET


def complain(sentence: str) -> None:
    """One sentence on stderr, behind the program's name."""
    click.echo(f"ring1: {sentence}", err=True)


def first_line(error: Exception) -> str:
    """What the exception says, cut to a line."""
    return (str(error).splitlines() or ["no message"])[0][:200]


def entry_point() -> None:
    """The console script."""
    sys.exit(main())
