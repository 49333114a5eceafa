"""Debian's stock kernel for amd64 as a PV domain, to a shell of BusyBox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hypervisor.api import Machine, RunEnd
from hypervisor.testing.debian import Unavailable, linux_kernel
from hypervisor.testing.script import Expect, Script, Send, Step
from tests.real.conftest import debian_or_skip
from tests.support.ramdisk import busybox_ramdisk

pytestmark = [pytest.mark.real, pytest.mark.slow]

INIT = """#!/bin/sh
mount -t proc proc /proc
echo up as $(uname -sm)
exec sh
"""
APPLETS = ("sh", "mount", "uname", "cat", "grep", "ls", "poweroff", "seq", "sha256sum", "nproc")


@pytest.fixture(scope="session")
def kernel() -> Path:
    """The kernel, as Debian ships it."""
    try:
        return linux_kernel()
    except Unavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"needed in CI: {reason}")
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def ramdisk() -> bytes:
    """BusyBox and a shell on the console."""
    busybox = debian_or_skip("busybox-static", "bin/busybox")
    return busybox_ramdisk(busybox.read_bytes(), INIT, APPLETS)


def play(kernel: Path, ramdisk: bytes, steps: list[Step], nr_vcpus: int) -> None:
    """Boot, play the script, and power off."""
    with Machine(memory_mib=280) as machine:  # audited after each run, like all under test
        linux = machine.create(
            kernel,
            name="linux",
            memory_mib=256,
            cmdline="console=hvc0",
            ramdisk=ramdisk,
            nr_vcpus=nr_vcpus,
        )
        script = Script(steps, {"linux": linux.console})
        limit_ns = 60 * 10**9
        while True:
            script.act()
            end = machine.run(until=None if script.done else script.due, time_limit_ns=limit_ns)
            if end is not RunEnd.PREDICATE:
                break
        shown = linux.console.output.decode(errors="replace")
        assert end is RunEnd.ALL_STOPPED, shown[-2000:]
        assert script.done, shown[-2000:]
        assert linux.shutdown_reason == 0
        assert "BUG" not in shown
        assert "WARNING" not in shown


def test_stock_linux_comes_to_a_shell_and_powers_off(kernel: Path, ramdisk: bytes) -> None:
    steps: list[Step] = [
        Expect.parse("up as Linux x86_64"),
        Expect.parse("/ # "),
        Send.parse(r"seq 2000 | sha256sum; grep -c processor /proc/cpuinfo; echo $((6 * 7))\n"),
        Expect.parse("6251e5743b6fd6a7d606130bdf7c15077ce85ebd3a0fdee284d15a46df199e38"),
        Expect.parse(r"^1\r?$"),
        Expect.parse(r"^42\r?$"),
        Send.parse(r"poweroff -f\n"),
    ]
    play(kernel, ramdisk, steps, nr_vcpus=1)


@pytest.mark.parametrize("nr_vcpus", [2, 4])
def test_stock_linux_brings_up_all_its_vcpus(kernel: Path, ramdisk: bytes, nr_vcpus: int) -> None:
    """Six programs at once, so that processors are interrupted, moved to and shared."""
    work = "for i in 1 2 3 4 5 6; do (seq 20000 | sha256sum) & done; wait; echo $((6 * 7))"
    steps: list[Step] = [
        Expect.parse("/ # "),
        Send.parse(r"nproc\n"),
        Expect.parse(rf"^{nr_vcpus}\r?$"),
        Send.parse(rf"{work}\n"),
        *[Expect.parse("f6351f5ead9a700e34275480b3856ea738122a7c57bdeb744a631251c069587a")] * 6,
        Expect.parse(r"^42\r?$"),
        Send.parse(r"grep -c callfuncsingle /proc/interrupts; poweroff -f\n"),
        Expect.parse(rf"^{nr_vcpus}\r?$"),
    ]
    play(kernel, ramdisk, steps, nr_vcpus)
