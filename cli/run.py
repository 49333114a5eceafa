"""Letting the machine run, with the host's failures told from the machine's."""

from __future__ import annotations

from collections.abc import Callable

from cli.exits import Refusal
from hypervisor.api import Entry, Machine, RunEnd, VmmBug


def run(
    machine: Machine,
    *,
    until: Callable[[], bool] | None = None,
    until_entry: Callable[[Entry], bool] | None = None,
    time_limit_ns: int | None = None,
) -> RunEnd:
    """As `Machine.run`. What the host could not write inside the run is raised as such: a closed
    pipe as BrokenPipeError, the rest as Refusal; it is no bug of the machine."""
    try:
        return machine.run(until=until, until_entry=until_entry, time_limit_ns=time_limit_ns)
    except VmmBug as bug:
        if isinstance(bug.__cause__, BrokenPipeError):
            raise bug.__cause__ from None
        if isinstance(bug.__cause__, OSError):
            reason = bug.__cause__.strerror or str(bug.__cause__)
            raise Refusal(f"cannot write output: {reason.lower()}") from None
        raise
