"""Entering and leaving the VMM flush nothing: Xen's region is the same in every address space."""

from __future__ import annotations

import pytest

from guests import guest_path
from hypervisor.abi.width import Width
from hypervisor.api import Machine

N = 20_000
#: What each loop of the bench guest does N times.
LOOPS = {
    "hypercall": "null hypercalls",
    "fault": "exceptions, bounced and returned from",
    "syscall": "system calls of user mode, bounced and returned from",
}


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
@pytest.mark.parametrize("loop", LOOPS)
def test_coming_and_going_flushes_nothing(width: Width, loop: str) -> None:
    with Machine(memory_mib=32) as machine:
        dom = machine.create(
            guest_path("bench", width.value), memory_mib=16, cmdline=f"loop={loop} n={N}"
        )
        stats = machine.vmm.cpu.stats
        vcpu = machine.vmm.host.domains[dom.domid].vcpus[0]
        marks: list[tuple[int, int]] = []

        def listen(data: bytes) -> None:
            if b"bench: begin" in data or b"bench: end" in data:
                flushes = stats.tlb_flushes + stats.tlb_page_flushes
                marks.append((flushes, vcpu.calls.count + vcpu.exceptions))

        dom.console.on_output(listen)
        machine.run()
        (flushes_before, entries_before), (flushes, entries) = marks
        assert entries - entries_before >= N
        assert flushes - flushes_before == 0
