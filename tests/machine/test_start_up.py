"""At its start the CPU proves that the engine is as it thinks, or takes the other way."""

from __future__ import annotations

import mmap
import platform
import re
from typing import Any

import pytest

from hypervisor.machine import _calibrate, _engine, _native
from hypervisor.machine.cpu import Cpu, StateAccess, Stop
from hypervisor.machine.memory import MachineMemory
from tests.support.board import RAX, Board


def new_cpu(**how: Any) -> Cpu:
    return Cpu(MachineMemory(1 << 20), **how)


def wrong_offsets(**changes: int) -> dict[tuple[str, int], _calibrate.Build]:
    """The known builds with something moved."""
    known = next(iter(_calibrate.BUILDS.values()))
    fields = {name: getattr(known, name) for name in known.__slots__} | changes
    return {(_engine.VERSION, _engine.library_size()): _calibrate.Build(**fields)}


def test_known_build_is_used_live() -> None:
    assert new_cpu().access is StateAccess.LIVE


def test_unknown_build_is_used_by_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_calibrate, "BUILDS", {})
    board = Board()
    assert board.cpu.access is StateAccess.COPIES
    board.run("b807000000 0f0b")
    assert board.gpr(RAX) == 7


def test_unknown_build_cannot_be_used_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_calibrate, "BUILDS", {})
    with pytest.raises(_engine.EngineError, match="no live state in this build of unicorn"):
        new_cpu(access=StateAccess.LIVE)


@pytest.mark.parametrize(
    "changes",
    [
        {"env": 0x8A50 + 8},
        {"cflags_next_tb": 0x18 + 64},
        {"no_exit_request": 0x7F2 + 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_build_that_is_not_what_it_says_is_used_by_copies(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, int]
) -> None:
    monkeypatch.setattr(_calibrate, "BUILDS", wrong_offsets(**changes))
    assert new_cpu().access is StateAccess.COPIES
    with pytest.raises(_engine.EngineError):
        new_cpu(access=StateAccess.LIVE)


@pytest.mark.parametrize("name", ["tlb_flush_page_x86_64", "helper_read_eflags_x86_64"])
def test_build_without_an_export_is_used_by_copies(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    exported = _engine.exported
    monkeypatch.setattr(
        _engine, "exported", lambda wanted: None if wanted == name else exported(wanted)
    )
    assert new_cpu().access is StateAccess.COPIES


def test_state_of_unknown_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_calibrate, "BUILDS", {})
    moved = {name: (at + 8, value) for name, (at, value) in _calibrate._PROBE.items()}
    monkeypatch.setattr(_calibrate, "_PROBE", moved)
    sentence = "lays its CPU state out in an unknown way; install unicorn 2.1.4"
    with pytest.raises(_engine.EngineError, match=re.escape(sentence)):
        new_cpu()


def test_host_without_executable_memory_counts_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no executable memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert not _native.native_code_works()


def test_host_of_another_kind_counts_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    board = Board()
    assert not board.cpu.is_native_clock
    assert board.run("ebfe", limit_bytes=100) is Stop.DEADLINE


def test_start_up_leaves_no_trace() -> None:
    cpu = new_cpu()
    assert cpu.clock.now_ps() == 0
    assert not any(cpu.memory.view)
    assert not any(cpu.code_frames)
