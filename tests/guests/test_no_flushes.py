"""Entering and leaving the VMM flush nothing: Xen's region is the same in every address space."""

from __future__ import annotations

import pytest

from guests import guest_path
from hypervisor.abi.width import Width
from hypervisor.api import Machine

COUNTS = [
    pytest.param(20_000, id="some"),
    pytest.param(1_000_000, marks=pytest.mark.slow, id="a million"),
]
#: What each loop of the bench guest does N times.
LOOPS = {
    "hypercall": "null hypercalls",
    "fault": "exceptions, bounced and returned from",
    "syscall": "system calls of user mode, bounced and returned from",
}


def flushes(machine: Machine) -> dict[str, int]:
    """All kinds of flushes so far."""
    return {name: count for name, count in machine.stats.items() if "flushes" in name}


def test_flushes_are_counted_by_kind() -> None:
    """So that none of what follows is zero because nobody counts."""
    with Machine(memory_mib=32) as machine:
        before = flushes(machine)
        assert len(before) == 3
        cpu = machine.vmm.cpu
        cpu.flush_tlb()
        for _ in range(2):
            cpu.flush_tlb_page(0x1000)
        for _ in range(3):
            cpu.flush_tlb_user()
        after = flushes(machine)
        assert {name: after[name] - before[name] for name in after} == {
            "tlb_flushes": 1,
            "tlb_page_flushes": 2,
            "tlb_user_flushes": 3,
        }


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("count", COUNTS)
def test_coming_and_going_flushes_nothing(width: Width, loop: str, count: int) -> None:
    with Machine(memory_mib=32) as machine:
        dom = machine.create(
            guest_path("bench", width.value), memory_mib=16, cmdline=f"loop={loop} n={count}"
        )
        marks: list[tuple[dict[str, int], int]] = []

        def listen(data: bytes) -> None:
            if b"bench: begin" in data or b"bench: end" in data:
                entries = dom.stats["hypercalls"] + dom.stats["exceptions"]
                marks.append((flushes(machine), entries))

        dom.console.on_output(listen)
        machine.run()
        (flushes_before, entries_before), (flushes_after, entries) = marks
        assert entries - entries_before >= count
        assert flushes_after == flushes_before
