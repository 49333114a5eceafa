"""What holds for every test: scenarios are collected, Hypothesis does not time the host, and every
machine's frame table is audited after each run."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from hypervisor.api import Machine
from tests.support.effort import LONG

pytest_plugins = ["hypervisor.testing.plugin"]

# the machine is shared: how long an example takes says nothing; a failing one must be repeatable
# and CI throws the same dice each time: what it finds is about the change that it tests
settings.register_profile(
    "ring1", deadline=None, derandomize=os.environ.get("CI") == "true", print_blob=True
)
settings.register_profile(LONG, deadline=None, print_blob=True)
settings.load_profile("ring1")

Machine.always_audit = True


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the fuzzer goes on, and with which dice."""
    group = parser.getgroup("fuzz")
    group.addoption(
        "--fuzz-calls", type=int, default=100_002, help="hypercalls to make, in all widths together"
    )
    group.addoption("--fuzz-seed", type=int, default=0, help="any number: another run")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the fuzzer reached, from whichever process it ran in."""
    for reports in terminalreporter.stats.values():
        for one in reports:
            for name, value in getattr(one, "user_properties", ()):
                if name == "fuzz" and one.when == "call":
                    terminalreporter.write_line(str(value))
