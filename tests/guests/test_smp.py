"""`smp`: several vCPUs of one domain, in every width, however the run is stopped."""

from __future__ import annotations

import pytest

from guests import REPORT_PASS, WIDTHS, guest_path
from hypervisor.abi.sched import ShutdownReason
from hypervisor.api import Machine
from tests.support.storm import storm

SECOND = 10**9
ROUNDS = "rounds=200"


def played(width: str, nr_vcpus: int, *, stormy: bool = False) -> tuple[str, str]:
    """What it prints, and the machine's digest at its end."""
    with Machine(memory_mib=64) as machine:
        dom = machine.create(
            guest_path("smp", width), memory_mib=16, nr_vcpus=nr_vcpus, cmdline=ROUNDS
        )
        if stormy:
            with storm(machine.vmm.cpu):
                machine.run(time_limit_ns=10 * SECOND)
        else:
            machine.run(time_limit_ns=10 * SECOND)
        assert dom.shutdown_reason == ShutdownReason.POWEROFF, dom.console.output.decode()
        return dom.console.output.decode(), machine.digest()


@pytest.mark.parametrize("nr_vcpus", [1, 2, 4])
@pytest.mark.parametrize("width", WIDTHS)
def test_smp_passes(width: str, nr_vcpus: int) -> None:
    console, _ = played(width, nr_vcpus)
    passed = REPORT_PASS.search(console)
    assert passed is not None, console
    assert int(passed["checks"]) == (5 if nr_vcpus == 1 else 36)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_same_run_under_a_storm_of_stops(width: str) -> None:
    assert played(width, 4) == played(width, 4, stormy=True)
