"""Our kernels on a real Xen, and the same kernels here: what they see must be the same.

`traps` and `pagetables` are written from Intel's manuals and Xen's headers. That they pass on Xen
4.17 shows that they ask the right questions, and that each answer here equals Xen's shows more than
that both pass. The differences that remain are listed, each with its reason. `refusals` needs no
list: every error number it expects is the one that Xen gave.

Dom0 is privileged, so `pagetables` is too when it runs here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
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

HARDWARE = "dom0 has hardware: it may map what is not memory, and cached as it likes"
MACHINES_MAP = "dom0 has the machine's memory map and none of its own; here it is no dom0"
TRUST = "Xen does not scrub what a living domain gives back, unless told to; here it is always done"

PAGE_TABLE_DIFFERENCES: Final = {
    "l1.pwt": HARDWARE,
    "l1.pcd": HARDWARE,
    "l1.7": HARDWARE,
    "leaf.beyond": HARDWARE,
    "l2.bad-bit": HARDWARE,
    "l2.bad-frame": HARDWARE,
    "place.then": HARDWARE,
    "va.bits": HARDWARE,
    "cache.flush": HARDWARE,
    "cache.flush-global": HARDWARE,
    "rules.bits": HARDWARE,
    "rules.no-frame": HARDWARE,
    "assist.off": "Xen looks at each write fault of the hardware domain, for its read-only devices",
    "map.no-room": MACHINES_MAP,
    "map.fine": MACHINES_MAP,
    "map.ram": MACHINES_MAP,
    "map.at-xen": MACHINES_MAP,
    "map.machine": MACHINES_MAP,
    "balloon.scrubbed": TRUST,
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


def console_here(name: str, *, privileged: bool = False) -> str:
    """What a guest prints under ring1."""
    with Machine() as machine:
        dom = machine.create(guest_path(name, "x86_64"), privileged=privileged)
        machine.run(time_limit_ns=60 * 10**9)
        return dom.console.output.decode()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a guest prints under ring1, and as dom0 of a real Xen."""

    here: str
    there: str
    differences: dict[str, str]


@pytest.fixture(scope="module", params=["traps", "pagetables"])
def both(request: pytest.FixtureRequest, xen: Path) -> Comparison:
    """The two, for a guest that makes many checks."""
    name: str = request.param
    there = console_of_dom0(xen, guest_path(name, "x86_64"))
    if name == "traps":
        return Comparison(console_here(name), there, DIFFERENCES)
    return Comparison(console_here(name, privileged=True), there, PAGE_TABLE_DIFFERENCES)


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


@pytest.mark.parametrize("name", ["hello", "ticker", "clocks", "refusals", "demand", "events"])
def test_guest_passes_as_dom0_of_a_real_xen(xen: Path, name: str) -> None:
    console = console_of_dom0(xen, guest_path(name, "x86_64"))
    assert REPORT_PASS.search(console), console


def test_several_vcpus_as_dom0_of_a_real_xen(xen: Path) -> None:
    """Four QEMU threads race on the host's CPUs, and a busy host starves one of them now and then
    for longer than the guest waits: one boot of three has to pass."""
    for _ in range(3):
        console = console_of_dom0(xen, guest_path("smp", "x86_64"), "rounds=100", cpus=4)
        if REPORT_PASS.search(console):
            break
    assert "smp: x86_64, 4 vCPUs" in console, console
    assert REPORT_PASS.search(console), console


def test_it_passes_as_dom0_of_a_real_xen(both: Comparison) -> None:
    assert REPORT_PASS.search(both.there), both.there


def test_it_passes_here(both: Comparison) -> None:
    assert REPORT_PASS.search(both.here), both.here


def test_it_makes_the_same_checks_here_and_there(both: Comparison) -> None:
    assert list(check_results(both.here)) == list(check_results(both.there))


def test_it_sees_the_same_here_and_there(both: Comparison) -> None:
    here, there = check_results(both.here), check_results(both.there)
    different = {
        check: f"here {here.get(check)}, on Xen {seen}"
        for check, seen in there.items()
        if here.get(check) != seen and check not in both.differences
    }
    assert different == {}


def test_every_listed_difference_is_one(both: Comparison) -> None:
    here, there = check_results(both.here), check_results(both.there)
    assert [check for check in both.differences if here.get(check) == there.get(check)] == []
