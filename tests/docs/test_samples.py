"""The samples work as their page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hypervisor.testing.debian import GRUB_PACKAGE
from tests.support.debian import debian_tree_or_skip

SAMPLES = Path(__file__).resolve().parent.parent.parent / "samples"


def run(*command: str) -> str:
    """What a command prints; it must not fail."""
    # fmt: off
    return subprocess.run(
        command, cwd=SAMPLES.parent, timeout=120, capture_output=True, text=True, check=True
    ).stdout
    # fmt: on


def test_tour_stops_looks_and_counts() -> None:
    printed = run(sys.executable, "samples/tour.py")
    assert re.match(r"\d+ ns: hello in ring 1 at 0x", printed)
    assert "ticker (x86_64) shutdown:" in printed
    assert re.search(r"^ +\d+ event_channel_op$", printed, re.MULTILINE)


@pytest.mark.real
def test_scenario_passes() -> None:
    debian_tree_or_skip(GRUB_PACKAGE)
    plugin = ("-p", "hypervisor.testing.plugin", "-p", "no:cacheprovider", "-n", "0")
    printed = run(sys.executable, "-m", "pytest", "-q", *plugin, "samples")
    assert "1 passed" in printed


def test_ramdisk_script_refuses_what_is_no_file(tmp_path: Path) -> None:
    script = str(SAMPLES / "busybox-ramdisk")
    ran = subprocess.run(
        [script, "nothing", str(tmp_path / "out")], capture_output=True, check=False
    )
    assert (ran.returncode, ran.stderr.decode().strip()) == (
        2,
        f"{script}: there is no file 'nothing'",
    )
