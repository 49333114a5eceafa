"""Kernels of our own: small PV guests in C and assembly, built for all three widths.

`guests.build` compiles them (`python -m guests.build`, and as a step of the package's build) to
`guests/built/<width>/<name>.elf`, and this module finds them. They run under ring1 and, the 64-bit
ones, as dom0 of a real Xen.

What a guest says about itself is a protocol of lines on its console:

- a check prints one line: `ok`, `skip` or `FAIL`, its id, what was seen, the rule it is about;
- the last line is `ring1: PASS <name> (<n> checks)`, and the domain powers off, or
  `ring1: FAIL <name>: <why>`, and it powers off when checks failed, or ends as crashed
  (SHUTDOWN_crash) when it met a trap or an error that no check foresaw;
- a guest that checks nothing, like `bench`, still
  ends with one of the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "CHECK_LINE",
    "REPORT_FAIL",
    "REPORT_PASS",
    "WIDTHS",
    "GuestInfo",
    "GuestNotBuiltError",
    "built_guests",
    "guest_path",
]

WIDTHS: Final = ("x86_32", "x86_32p", "x86_64")

REPORT_PASS: Final = re.compile(
    r"^ring1: PASS (?P<name>\w+) \((?P<checks>\d+) checks\)\r?$", re.MULTILINE
)
REPORT_FAIL: Final = re.compile(r"^ring1: FAIL (?P<name>\w+): (?P<why>.*?)\r?$", re.MULTILINE)
CHECK_LINE: Final = re.compile(
    r"^(?P<verdict>ok|skip|FAIL) +(?P<id>[\w.-]+) +(?P<seen>.*?)(?:  +(?P<rule>\S.*?))?\r?$",
    re.MULTILINE,
)

_BUILT: Final = Path(__file__).resolve().parent / "built"

_SUMMARIES: Final = {
    "hello": "says which width, ring, selectors, domain and Xen it finds itself on",
    "traps": "provokes every exception, from the kernel and from user mode, and checks delivery",
    "ticker": "the clock and the timers: set_timer_op, vCPU timers, block and poll",
    "clocks": "real, virtual and wall-clock time, read against each other",
    "decoder": "work with a deadline, thirty times a second; counts the deadlines it misses",
    "refusals": "hypercalls that are wrong in one respect each, and the error Xen has for them",
    "smp": "brings up all its vCPUs: locks, IPIs, timers, run-states, down and up, NMIs",
    "events": "event channels by bitmaps and by queues (FIFO), rule by rule",
    "pingpong": "event round trips between two domains, and how long they take",
    "pagetables": "what may be done with page tables and frames, and what is refused, each rule",
    "crash": "ends badly on purpose: how=no-handler, how=stack or how=shutdown",
    "attacks": "ways out of a domain, tried for real: only=NAME, or role=neighbour",
    "spinner": "keeps a CPU busy, or waits to be woken; says how late it was served",
    "bench": "loops to measure: null hypercalls, arithmetic, loads, stores (loop=..., n=...)",
    "demand": "processes, page faults, copy-on-write fork: who takes part, and what each way costs",
}


class GuestNotBuiltError(LookupError):
    """No such guest, or not built for that width; the text says which."""


@dataclass(frozen=True, slots=True)
class GuestInfo:
    """A guest and the widths it has been built for."""

    name: str
    summary: str
    widths: tuple[str, ...]


def built_guests() -> dict[str, GuestInfo]:
    """Return the guests that are built, by name, in the order in which they are documented."""
    found = {}
    for name, summary in _SUMMARIES.items():
        widths = tuple(width for width in WIDTHS if _elf(name, width).is_file())
        if widths:
            found[name] = GuestInfo(name, summary, widths)
    return found


def guest_path(name: str, width: str) -> Path:
    """Return the ELF file of a built guest.

    Raises GuestNotBuiltError when there is none, with a sentence that says why.
    """
    if name not in _SUMMARIES:
        raise GuestNotBuiltError(f"no guest is called {name!r}; there are {', '.join(_SUMMARIES)}")
    if width not in WIDTHS:
        raise GuestNotBuiltError(f"no width is called {width!r}; there are {', '.join(WIDTHS)}")
    path = _elf(name, width)
    if not path.is_file():
        raise GuestNotBuiltError(
            f"guest {name} is not built for {width}; `python -m guests.build` builds it"
        )
    return path


def _elf(name: str, width: str) -> Path:
    return _BUILT / width / f"{name}.elf"
