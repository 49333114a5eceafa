"""`events` and `pingpong`: every rule of event channels, and events between two domains."""

from __future__ import annotations

import re

import pytest

from guests import REPORT_PASS, WIDTHS, guest_path
from hypervisor.api import DomainHandle, Machine, RunEnd

SECOND = 10**9


def console(dom: DomainHandle) -> str:
    return dom.console.output.decode()


@pytest.mark.parametrize("width", WIDTHS)
def test_events_passes(width: str) -> None:
    with Machine(memory_mib=64) as machine:
        dom = machine.create(guest_path("events", width), memory_mib=16)
        machine.run(time_limit_ns=SECOND)
        passed = REPORT_PASS.search(console(dom))
        assert passed is not None, console(dom)
        assert int(passed["checks"]) == 66


@pytest.mark.parametrize("wait", ["upcall", "poll"])
@pytest.mark.parametrize("widths", [("x86_64", "x86_64"), ("x86_32", "x86_64"), ("x86_32p",) * 2])
def test_two_domains_ring_each_other(widths: tuple[str, str], wait: str) -> None:
    with Machine(memory_mib=96) as machine:
        common = f"wait={wait} n=50"
        opener = machine.create(
            guest_path("pingpong", widths[0]), memory_mib=16, cmdline=f"role=open peer=2 {common}"
        )
        assert machine.run(time_limit_ns=SECOND) is RunEnd.BLOCKED_FOREVER
        port = re.search(r"^port (\d+) is open to d2", console(opener))
        assert port is not None, console(opener)
        binder = machine.create(
            guest_path("pingpong", widths[1]),
            memory_mib=16,
            cmdline=f"role=bind peer=1 port={port[1]} {common}",
        )
        assert machine.run(time_limit_ns=machine.now_ns + SECOND) is RunEnd.ALL_STOPPED
        assert REPORT_PASS.search(console(opener)), console(opener)
        assert "\n50 round trips in " in console(binder).replace("\r", "")
        upcalls = binder.stats["upcalls"]
        assert upcalls == 50 if wait == "upcall" else upcalls == 0
