"""The hypercalls, one module per family; importing this package registers them all."""

from __future__ import annotations

from hypervisor.hypercalls import (
    absent,
    callbacks,
    console_io,
    descriptors,
    event_channel,
    grant_table,
    memory,
    misc,
    mmu,
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
    "descriptors",
    "event_channel",
    "grant_table",
    "memory",
    "misc",
    "mmu",
    "multicall",
    "sched",
    "vcpu",
    "version",
]
