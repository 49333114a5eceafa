"""Stops from outside, as many as there can be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hypervisor.machine.cpu import Cpu

EVERY_S = 0.00005


def _nothing() -> None:
    pass


@contextmanager
def storm(cpu: Cpu, *, kicked: Callable[[], None] = _nothing) -> Iterator[None]:
    """Another thread kicks the CPU all the time. It runs while the engine does: short entries into
    that, which would keep Python's lock, give it up here too."""
    over = threading.Event()
    engine = cpu._core.engine
    start = engine.start

    def kick() -> None:
        while not over.wait(EVERY_S):
            cpu.kick()
            kicked()

    thread = threading.Thread(target=kick)
    vars(engine)["start"] = lambda rip, count=0, **_: start(rip, count, is_short=False)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        del vars(engine)["start"]
