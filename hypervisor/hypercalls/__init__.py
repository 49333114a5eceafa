"""The hypercalls, one module per family; importing this package registers them all."""

from __future__ import annotations

from hypervisor.hypercalls import (
    absent,
    callbacks,
    console_io,
    cpu_state,
    descriptors,
    event_channel,
    grant_table,
    memory,
    misc,
    mmu,
    mmuext,
    multicall,
    sched,
    vcpu,
    version,
)
from hypervisor.hypercalls.table import CoverageRow, coverage

__all__ = [
    "CoverageRow",
    "absent",
    "callbacks",
    "console_io",
    "coverage",
    "cpu_state",
    "descriptors",
    "event_channel",
    "grant_table",
    "memory",
    "misc",
    "mmu",
    "mmuext",
    "multicall",
    "sched",
    "vcpu",
    "version",
]
