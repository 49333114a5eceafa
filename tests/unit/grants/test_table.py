"""Grant tables as the VMM keeps them: frames lent, and all given back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.grants.table import INITIAL_FRAMES, MAX_FRAMES, GrantTables
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.frames import LENT, FrameTable
from tests.support.small_machine import refused

DOM: Any = SimpleNamespace(domid=1)


@pytest.fixture
def frames() -> FrameTable:
    return FrameTable(MachineMemory(128 * 4096))


def test_a_table_has_a_frame_before_anyone_asks(frames: FrameTable) -> None:
    assert GrantTables(frames).nr_frames(DOM) == INITIAL_FRAMES == 1
    assert frames.nr_free == 127


def test_it_grows_by_what_is_missing(frames: FrameTable) -> None:
    grants = GrantTables(frames)
    first = list(grants.grown(DOM, 2).frames)
    table = grants.grown(DOM, 5)
    assert table.frames[:2] == first
    assert len(table.frames) == grants.nr_frames(DOM) == 5
    assert all(frames.flags[mfn] == LENT for mfn in table.frames)


def test_a_table_of_none_has_its_first(frames: FrameTable) -> None:
    assert len(GrantTables(frames).grown(DOM, 0).frames) == 1


def test_not_beyond_the_limit(frames: FrameTable) -> None:
    with refused(Errno.EINVAL, r"^a grant table of 65 frames; at most 64$"):
        GrantTables(frames).grown(DOM, MAX_FRAMES + 1)


def test_not_beyond_the_machine(frames: FrameTable) -> None:
    grants = GrantTables(frames)
    frames.allocate_xen(100)
    with refused(Errno.ENOMEM, r"^60 frames wanted, 27 free$"):
        grants.grown(DOM, 60)
    assert (frames.nr_free, grants.tables) == (27, {})


def test_all_frames_come_back(frames: FrameTable) -> None:
    grants = GrantTables(frames)
    grants.grown(DOM, 9)
    grants.release(1)
    grants.release(1)
    assert (frames.nr_free, grants.tables) == (127, {})
