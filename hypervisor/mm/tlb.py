"""Flushing translations: only what was asked for or is needed, once at the end of a hypercall.

The region of Xen's is the same in every address space of a domain, so that entering and leaving the
VMM flush nothing; and the VMM itself walks tables in memory, so a change of an entry flushes
nothing either. What does: the guest's own requests, another address space, and `FrameTable.settle`,
when a frame changes its use while a stale translation of it may be left.

While a hypercall works through a list, its flushes wait (`hold`, `release`): no guest code runs
meanwhile, so one flush serves for all. Only `now` does not wait, because what follows it counts on
it. A whole flush ends a flush epoch.
"""

from __future__ import annotations

from typing import Final, Protocol

from hypervisor.mm.frames import FrameTable

_MANY: Final = 32  # pages whose flushes cost as much as filling the TLB anew


class Flushable(Protocol):
    """A CPU, as far as it matters here."""

    def flush_tlb(self) -> None: ...
    def flush_tlb_page(self, vaddr: int) -> None: ...
    def flush_tlb_user(self) -> None: ...


class Tlb:
    """One CPU's TLB. `requests` counts what was asked for; the CPU counts what was done."""

    __slots__ = ("_all", "_cpu", "_frames", "_held", "_pages", "_user", "requests")

    def __init__(self, cpu: Flushable, frames: FrameTable) -> None:
        self._cpu = cpu
        self._frames = frames
        self._held = 0
        self._all = False
        self._user = False
        self._pages: set[int] = set()
        self.requests = 0

    def all(self) -> None:
        """Flush everything, at once or when held flushes are released."""
        self.requests += 1
        if self._held:
            self._all = True
        else:
            self.now()

    def user(self) -> None:
        """The same for what user mode has used: its tables are others now."""
        self.requests += 1
        if self._held:
            self._user = True
        else:
            self._cpu.flush_tlb_user()

    def page(self, vaddr: int) -> None:
        """The same for one page."""
        self.requests += 1
        if self._held:
            self._pages.add(vaddr & -4096)
        else:
            self._cpu.flush_tlb_page(vaddr)

    def now(self) -> None:
        """Flush everything before anything else is done; held flushes are done with it."""
        self._all = self._user = False
        self._pages.clear()
        self._cpu.flush_tlb()
        self._frames.flushed()

    def hold(self) -> None:
        """Let flushes wait until `release`; both may be nested."""
        self._held += 1

    def release(self) -> None:
        """The opposite: what waited is done now."""
        self._held -= 1
        if self._held == 0 and (self._all or self._user or self._pages):
            self._catch_up()

    def _catch_up(self) -> None:
        if self._all or len(self._pages) > _MANY:
            self.now()
            return
        if self._user:
            self._user = False
            self._cpu.flush_tlb_user()
        for vaddr in sorted(self._pages):
            self._cpu.flush_tlb_page(vaddr)
        self._pages.clear()
