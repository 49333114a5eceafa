"""Every guest in every width: it passes, alone and among neighbours, and ends as it says."""

from __future__ import annotations

import pytest

from guests import REPORT_FAIL, REPORT_PASS, WIDTHS, guest_path
from hypervisor.abi.sched import ShutdownReason
from hypervisor.api import DomainHandle, DomainState, Machine
from tests.support.storm import storm

COMMAND_LINES = {
    "hello": "",
    "traps": "",
    "ticker": "ticks=5 period_ms=2",
    "clocks": "round_ms=5",
    "decoder": "frames=5 allow=0",
    "refusals": "",
    "pagetables": "",
    "bench": "n=500",
    "demand": "",
}
SECOND = 10**9


def console(dom: DomainHandle) -> str:
    return dom.console.output.decode()


def create(machine: Machine, name: str, width: str, command_line: str) -> DomainHandle:
    return machine.create(
        guest_path(name, width), name=f"{name} {width}", memory_mib=16, cmdline=command_line
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMAND_LINES)
def test_guest_passes_alone(name: str, width: str) -> None:
    with Machine(memory_mib=64) as machine:
        dom = create(machine, name, width, COMMAND_LINES[name])
        machine.run(time_limit_ns=10 * SECOND)
        passed = REPORT_PASS.search(console(dom))
        assert passed is not None, console(dom)
        assert passed["name"] == name
        assert dom.shutdown_reason == ShutdownReason.POWEROFF


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMAND_LINES)
def test_guest_passes_audited_and_under_a_storm_of_stops(name: str, width: str) -> None:
    """Audited at every 256th entry, not only at the end. Short guests run until a stop hits one."""
    kicks = 0

    def kicked() -> None:
        nonlocal kicks
        kicks += 1

    for _ in range(100):
        with Machine(memory_mib=64, audit=True) as machine:
            dom = create(machine, name, width, COMMAND_LINES[name])
            with storm(machine.vmm.cpu, kicked=kicked):
                machine.run(time_limit_ns=10 * SECOND)
            assert REPORT_PASS.search(console(dom)) is not None, console(dom)
        if kicks:
            return
    pytest.fail("no stop came in a hundred runs")


def test_guests_of_all_widths_pass_together() -> None:
    with Machine(memory_mib=256) as machine:
        doms = [
            create(machine, name, width, COMMAND_LINES[name])
            for width in WIDTHS
            for name in ("traps", "ticker")
        ]
        machine.run(time_limit_ns=10 * SECOND)
        assert [dom.name for dom in doms if not REPORT_PASS.search(console(dom))] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_guest_that_cannot_go_on_says_why_and_ends_as_crashed(width: str) -> None:
    with Machine(memory_mib=64) as machine:
        dom = create(machine, "bench", width, "loop=nonesuch")
        machine.run(time_limit_ns=SECOND)
        failed = REPORT_FAIL.search(console(dom))
        assert failed is not None
        assert failed["why"].startswith("there is no such loop as the command line")
        assert dom.shutdown_reason == ShutdownReason.CRASH
        assert dom.state is not DomainState.RUNNING


@pytest.mark.parametrize("width", WIDTHS)
def test_a_prefix_selects_the_checks_of_traps(width: str) -> None:
    with Machine(memory_mib=64) as machine:
        dom = create(machine, "traps", width, "only=de.")
        machine.run(time_limit_ns=SECOND)
        passed = REPORT_PASS.search(console(dom))
        assert passed is not None
        assert passed["checks"] == "2"
