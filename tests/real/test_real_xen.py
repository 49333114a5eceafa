"""Our kernels on a real Xen, and the same kernel here: what `traps` sees must be the same.

`traps` is written from Intel's manuals and Xen's headers. That it passes on Xen 4.17 shows that it
asks the right questions, and that each answer here equals Xen's shows more than that both pass. The
differences that remain are listed, each with its reason. `refusals` needs no list: every error
number it expects is the one that Xen gave.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import pytest

from guests import REPORT_PASS, guest_path
from hypervisor.api import Machine
from tests.real.conftest import debian_or_skip
from tests.support.real_xen import (
    QEMU,
    XEN_FILE,
    XEN_PACKAGE,
    check_results,
    console_of_dom0,
    qemu,
    unpacked_xen,
)

pytestmark = [pytest.mark.real, pytest.mark.slow]

QEMU_GATES = "QEMU's long mode reports a missing gate as n * 16 + 2, not n * 8 + 2"
RING_1 = "64-bit kernels really run in ring 1 here, where long mode lets SS be null"
FRAMES = "the value is a machine address, and each machine has its own frames"

DIFFERENCES: Final = {
    "int.no-gate": QEMU_GATES,
    "int.13-dpl-0": QEMU_GATES,
    "int.dpl-0": QEMU_GATES,
    "int.dpl-1": QEMU_GATES,
    "int.dpl-3": QEMU_GATES,
    "int.ff": QEMU_GATES,
    "user.int-no-gate": QEMU_GATES,
    "user.int-dpl-1": QEMU_GATES,
    "user.int-dpl-3": QEMU_GATES,
    "user.int82": QEMU_GATES,
    "gp.ss-null": RING_1,
    "cr3.read": FRAMES,
    "m2p.write": FRAMES,
}


@pytest.fixture(scope="module")
def xen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Xen 4.17, ready for QEMU."""
    if qemu() is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"needed in CI: {QEMU}")
        pytest.skip(f"{QEMU} is not installed")
    installed = Path("/") / XEN_FILE
    packed = installed if installed.is_file() else debian_or_skip(XEN_PACKAGE, XEN_FILE)
    return unpacked_xen(packed, tmp_path_factory.mktemp("xen"))


@pytest.fixture(scope="module")
def traps_there(xen: Path) -> str:
    """What `traps` prints as dom0 of a real Xen."""
    return console_of_dom0(xen, guest_path("traps", "x86_64"))


@pytest.fixture(scope="module")
def traps_here() -> str:
    """What `traps` prints under ring1."""
    with Machine() as machine:
        dom = machine.create(guest_path("traps", "x86_64"))
        machine.run(time_limit_ns=60 * 10**9)
        return dom.console.output.decode()


def crash_lines(report: str) -> list[str]:
    """The registers' part of a crash report, without its numbers and symbols."""
    lines = [line.strip() for line in report.splitlines() if line.startswith("(XEN)")]
    first = next(idx for idx, line in enumerate(lines) if "crashed on cpu" in line)
    last = next(idx for idx, line in enumerate(lines) if "Guest stack trace" in line)
    plain = [re.sub(r" \w+\+0x\w+$", "", line) for line in lines[first : last + 1]]
    return [re.sub(r"\b(?=\w*\d)\w+\b", "0", line) for line in plain]


def test_a_crash_is_reported_in_xens_shape(xen: Path) -> None:
    kernel = guest_path("crash", "x86_64")
    with Machine() as machine:
        dom = machine.create(kernel)
        machine.run(time_limit_ns=10**9)
        here = crash_lines(dom.crash_report or "")
    there = crash_lines(console_of_dom0(xen, kernel))
    code = next(idx for idx, line in enumerate(here) if "Guest code" in line)
    del here[code : code + 2]  # Xen shows none of a guest's
    assert here == there


@pytest.mark.parametrize("name", ["hello", "ticker", "clocks", "refusals", "demand"])
def test_guest_passes_as_dom0_of_a_real_xen(xen: Path, name: str) -> None:
    console = console_of_dom0(xen, guest_path(name, "x86_64"))
    assert REPORT_PASS.search(console), console


def test_several_vcpus_as_dom0_of_a_real_xen(xen: Path) -> None:
    console = console_of_dom0(xen, guest_path("smp", "x86_64"), "rounds=100", cpus=4)
    assert "smp: x86_64, 4 vCPUs" in console, console
    assert REPORT_PASS.search(console), console


def test_traps_passes_as_dom0_of_a_real_xen(traps_there: str) -> None:
    assert REPORT_PASS.search(traps_there), traps_there


def test_traps_makes_the_same_checks_here_and_there(traps_here: str, traps_there: str) -> None:
    assert list(check_results(traps_here)) == list(check_results(traps_there))


def test_traps_sees_the_same_here_and_there(traps_here: str, traps_there: str) -> None:
    here, there = check_results(traps_here), check_results(traps_there)
    different = {
        check: f"here {here.get(check)}, on Xen {seen}"
        for check, seen in there.items()
        if here.get(check) != seen and check not in DIFFERENCES
    }
    assert different == {}


def test_every_listed_difference_is_one(traps_here: str, traps_there: str) -> None:
    here, there = check_results(traps_here), check_results(traps_there)
    assert [check for check in DIFFERENCES if here.get(check) == there.get(check)] == []
