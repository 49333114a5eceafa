"""What holds for every test: scenarios are collected, and Hypothesis does not time the host."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["hypervisor.testing.plugin"]

# the machine is shared: how long an example takes says nothing; a failing one must be repeatable
settings.register_profile("ring1", deadline=None, print_blob=True)
settings.load_profile("ring1")
