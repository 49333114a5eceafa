"""What an inspection says of a kernel that nobody here wrote: PV-GRUB at its prompt."""

from __future__ import annotations

import pytest

from hypervisor.api import Machine, RunEnd

pytestmark = pytest.mark.real


@pytest.mark.parametrize("grub", ["grub_32", "grub_64"])
def test_grubs_frames_add_up_and_its_renumbering_is_seen(
    grub: str, request: pytest.FixtureRequest
) -> None:
    with Machine(memory_mib=88) as machine:
        dom = machine.create(request.getfixturevalue(grub), memory_mib=64)
        end = machine.run(until=lambda: b"grub>" in dom.console.output, time_limit_ns=10**9)
        assert end is RunEnd.PREDICATE
        inspection = dom.inspect()
        assert [f for f in dom.frames() if not inspection.frame(f.mfn).adds_up] == []
        # it swaps the numbers of a few frames, so that the list it was built with is old
        moved = {row.pfn: row.m2p for row in dom.p2m() if row.problem}
        assert moved
        assert all(there is not None and moved[there] == pfn for pfn, there in moved.items())
