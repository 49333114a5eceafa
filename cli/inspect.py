"""`ring1 inspect KERNEL [WHAT]...`: boot a guest, stop it, and look into its memory.

What is shown is what direct paging stands on: the guest's own page tables, which the MMU walks, and
the frame table beside them, which says why that is safe.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cli.exits import Exit, Refusal
from cli.options import audit_option, kernel_options, seed_option

if TYPE_CHECKING:
    from cli.session import Session
    from hypervisor.api import Entry, RunEnd

DEFAULT: Final = ("rip", "frames", "tables")


@click.command
@kernel_options
@click.argument("what", metavar="[WHAT]...", nargs=-1)
@click.option("--after", type=click.IntRange(0), metavar="NS", help="Stop at this virtual time.")
@click.option("--calls", type=click.IntRange(1), metavar="N", help="Stop after N hypercalls.")
@click.option("--faults", type=click.IntRange(1), metavar="N", help="Stop after N exceptions.")
@click.option("--at", metavar="ADDR", help="Stop before the instruction at ADDR.")
@click.option("--until", metavar="REGEX", help="Stop when the console shows a match.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each WHAT.")
@audit_option
@seed_option
def command(
    kernel: str,
    memory: int,
    vcpus: int,
    ramdisk: Path | None,
    cmdline: str,
    width: str,
    what: tuple[str, ...],
    after: int | None,
    calls: int | None,
    faults: int | None,
    at: str | None,
    until: str | None,
    as_json: bool,
    audit: bool,
    seed: int,
) -> int:
    """Boot KERNEL, stop it, and show its page tables and frames.

    It stops where one of the options below says; else where it ends, crashes, or ^C is typed.

    \b
    WHAT is any of these, in quotes if it has a space; without any, rip frames
    tables is meant:
      ADDR              the walk of an address: a number, a kernel's symbol,
                        symbol+number, or rip, rsp, rbp, cr2
      'walk ADDR user'  the same by the tables of a 64-bit user mode; v1: by
                        those of vCPU 1
      'frame MFN'       a frame: owner, type, counts, and everything that
                        uses it
      frames            how many frames of each type; 'frames l1': these
      tables            every page table
      p2m               pseudo-physical against machine frames; 'p2m PFN'

    \b
    Exit status:
      0  it stopped where it was to, or powered off
      1  it ended before that, or blocked for ever
      2  bad usage or input, such as an address that there cannot be
      3  it crashed; what was asked for is shown all the same
    """
    from cli.looking import show_all, wanted
    from cli.session import Session

    stops = {"after": after, "calls": calls, "faults": faults, "at": at, "until": until}
    given = [f"--{name}" for name, value in stops.items() if value is not None]
    if len(given) > 1:
        raise Refusal(f"only one place to stop can be given, not {' and '.join(given)}")
    stop = StopAt(after, calls, faults, at, until)
    stop.pattern()  # refused before anything is booted
    asked = wanted(what or DEFAULT)
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
            is_shown=False,
        )
        status = run_to(session, stop)
        show_all(session.domain, asked, as_json=as_json)
        return status


@dataclass(frozen=True, slots=True)
class StopAt:
    """Where the guest is to stop; all None: where it ends."""

    after_ns: int | None = None
    calls: int | None = None
    faults: int | None = None
    place: str | None = None  # an address, as the user wrote it
    regex: str | None = None

    def pattern(self) -> re.Pattern[bytes] | None:
        """The regular expression. Raises Refusal if it is none."""
        try:
            return None if self.regex is None else re.compile(self.regex.encode(), re.MULTILINE)
        except re.error as error:
            raise Refusal(f"--until {self.regex!r} is no regular expression: {error}") from error

    def entry_wanted(self) -> Callable[[Entry], bool] | None:
        """Whether an entry into the hypervisor is the one to stop at."""
        if self.calls is not None:
            return nth_of("hypercall", self.calls)
        return None if self.faults is None else nth_of("exception", self.faults)


def nth_of(kind: str, count: int) -> Callable[[Entry], bool]:
    """True at the entry that is number `count` of its kind."""
    numbers = itertools.count(1)
    return lambda entry: entry.kind == kind and next(numbers) == count


def run_to(session: Session, stop: StopAt) -> Exit:
    """Run to where the guest is to stop, say where it stands, and what that means."""
    from cli.run import run
    from cli.watch import Watch
    from hypervisor.api import RunEnd

    machine = session.machine
    pattern, wanted = stop.pattern(), stop.entry_wanted()
    with ExitStack() as stack:
        is_there = _predicate(stack, session, stop.place, pattern)
        watch = stack.enter_context(Watch(machine.interrupt, None))
        while True:
            end = run(machine, until=is_there, until_entry=wanted, time_limit_ns=stop.after_ns)
            if end is not RunEnd.INTERRUPTED or watch.ended:
                return say_where(session, end, was_asked=stop != StopAt())


def _predicate(
    stack: ExitStack, session: Session, place: str | None, pattern: re.Pattern[bytes] | None
) -> Callable[[], bool] | None:
    """Whether the guest is at `place`, or its console shows `pattern`."""
    from cli.looking import Looker, LookError

    domain = session.domain
    if place is not None:
        try:
            vaddr = Looker.at(domain).address(place)
        except LookError as error:
            raise Refusal(f"--at: {error}") from None
        stack.enter_context(session.machine.breakpoint(vaddr))
        machine = session.machine
        return lambda: (vcpu := machine.current) is not None and vcpu.rip == vaddr
    if pattern is not None:
        return lambda: pattern.search(domain.console.output) is not None
    return None


def say_where(session: Session, end: RunEnd, *, was_asked: bool) -> Exit:
    """One sentence on stderr about where the domain stands, and the exit status."""
    from cli.verdict import how_it_ended, seconds
    from hypervisor.api import RunEnd

    domain = session.domain
    if (ended := how_it_ended(domain)) is not None:
        status, what = ended
        if was_asked:
            what += " before it was where it was to stop,"
            status = Exit.UNMET if status is Exit.MET else status
    elif end is RunEnd.BLOCKED_FOREVER:
        status, what = Exit.UNMET, "blocked for ever"
    else:
        status, what = Exit.MET, "stopped"
    session.output.say(f"{domain.name} {what} after {seconds(session.machine)}")
    return status
