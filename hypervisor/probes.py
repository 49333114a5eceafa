"""Probe points: named places where the core tells whoever listens what just happened.

Each is a slot that is None when unused, so that an unused probe costs one attribute look-up. The
recorder, the live views and the tests are probes; nothing else in the core reports per event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Entry:
    """One entry into the VMM, as it is when the VMM is about to go back to the guest."""

    time_ps: int  # virtual time of the entry
    domid: int
    vcpu_id: int
    kind: str  # "hypercall", "exception", "emulated", "interrupt", "syscall"
    rip: int  # where the guest was
    number: int  # hypercall number or vector
    args: tuple[int, ...]  # hypercall arguments, or (error code, cr2)
    result: int | None  # what the guest gets back, None when nothing is written
    why: str  # the rule and the value, when something was refused
    checksum: int  # over the registers at entry


@dataclass(slots=True)
class Probes:
    """The machine's probe points."""

    entry: Callable[[Entry], None] | None = None  # every entry into the VMM: see watch_entries
    upcall: Callable[[int, int, int], None] | None = None  # time_ps, domid, vcpu_id
    runstate: Callable[[int, int, int, int], None] | None = None  # ns, domid, vcpu_id, RUNSTATE_*
    switch: Callable[[int, int, int], None] | None = None  # time_ps, domid, vcpu_id now running
    console: Callable[[int, bytes], None] | None = None  # domid, bytes
    on_watch: Callable[[], None] | None = None  # the VMM's: `entry` was set or taken away

    def watch_entries(self, probe: Callable[[Entry], None] | None) -> None:
        """Tell `probe` of every entry, or nobody: the VMM takes shorter ways then."""
        if probe is not self.entry:
            self.entry = probe
            if self.on_watch is not None:
                self.on_watch()
