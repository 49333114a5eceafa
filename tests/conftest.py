"""What holds for every test: scenarios are collected, Hypothesis does not time the host, and every
machine's frame table is audited after each run."""

from __future__ import annotations

from hypothesis import settings

from hypervisor.api import Machine

pytest_plugins = ["hypervisor.testing.plugin"]

# the machine is shared: how long an example takes says nothing; a failing one must be repeatable
settings.register_profile("ring1", deadline=None, print_blob=True)
settings.load_profile("ring1")

Machine.always_audit = True
