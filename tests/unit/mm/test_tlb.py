"""Flushes that wait for the end of a hypercall, and those that cannot."""

from __future__ import annotations

import pytest

from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.frames import FrameTable
from hypervisor.mm.tlb import Tlb


class Recorder:
    """A CPU that writes down what is flushed."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def flush_tlb(self) -> None:
        self.done.append("all")

    def flush_tlb_page(self, vaddr: int) -> None:
        self.done.append(f"{vaddr:#x}")

    def flush_tlb_user(self) -> None:
        self.done.append("user")


@pytest.fixture
def cpu() -> Recorder:
    return Recorder()


@pytest.fixture
def tlb(cpu: Recorder) -> Tlb:
    return Tlb(cpu, FrameTable(MachineMemory(16 * 4096)))


def test_by_itself_a_flush_is_done_at_once(tlb: Tlb, cpu: Recorder) -> None:
    tlb.page(0x1234)
    tlb.user()
    tlb.all()
    assert cpu.done == ["0x1234", "user", "all"]


def test_what_waits_is_done_once_at_the_end(tlb: Tlb, cpu: Recorder) -> None:
    tlb.hold()
    for vaddr in (0x2000, 0x1234, 0x1FFF):
        tlb.page(vaddr)
    assert cpu.done == []
    tlb.release()
    assert cpu.done == ["0x1000", "0x2000"]
    assert tlb.requests == 3


def test_a_whole_flush_covers_the_others(tlb: Tlb, cpu: Recorder) -> None:
    tlb.hold()
    tlb.page(0x1000)
    tlb.user()
    tlb.all()
    tlb.all()
    tlb.release()
    assert cpu.done == ["all"]


def test_many_pages_are_a_whole_flush(tlb: Tlb, cpu: Recorder) -> None:
    tlb.hold()
    for page in range(33):
        tlb.page(page << 12)
    tlb.release()
    assert cpu.done == ["all"]


def test_holds_nest(tlb: Tlb, cpu: Recorder) -> None:
    tlb.hold()
    tlb.hold()
    tlb.all()
    tlb.release()
    assert cpu.done == []
    tlb.release()
    assert cpu.done == ["all"]


def test_what_cannot_wait_does_not(tlb: Tlb, cpu: Recorder) -> None:
    """And what waited is done with it: nothing is left for the end."""
    tlb.hold()
    tlb.user()
    tlb.page(0x1000)
    tlb.now()
    assert cpu.done == ["all"]
    tlb.release()
    assert cpu.done == ["all"]


def test_only_a_whole_flush_ends_an_epoch(cpu: Recorder) -> None:
    frames = FrameTable(MachineMemory(16 * 4096))
    tlb = Tlb(cpu, frames)
    before = frames.epoch
    tlb.page(0x1000)
    tlb.user()
    assert frames.epoch == before
    tlb.all()
    assert frames.epoch == before + 1
