"""What changing page tables costs, by each way there is, and what validating whole trees costs.

python -m benchmarks.mm

Beside each loop stands how often it entered the VMM, and how often the paper's design would: a
mapping is one hypercall, a batch one for all, a page fault two entries (the fault, the mapping), to
which an iret by hypercall adds a third.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from benchmarks._harness import RUNS, Report, seconds
from guests import guest_path
from hypervisor.abi.width import Width
from hypervisor.api import Machine
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.entries import TYPE_OF_LEVEL
from hypervisor.mm.frames import FrameTable
from hypervisor.mm.hole_map import HOLE
from hypervisor.mm.pagetables import PageTables, XenSlots
from hypervisor.x86.paging import PTE_A, PTE_D, PTE_P, PTE_RW

COUNTS = {"map": 50_000, "batch": 204_800, "entry": 20_000, "touch": 20_480}
NAMES = {
    "map": "update_va_mapping",
    "batch": "an update of mmu_update by 512",
    "entry": "a store to a page table",
    "touch": "a page fault, mapped and over",
}
BARS = {"map": "<= 4 us", "batch": "<= 2 us", "entry": "<= 12 us", "touch": "<= 30 us in 32 bits"}
PAPER = {"map": "1", "batch": "1 / 512", "entry": "1", "touch": "2, and an iret"}
GUEST_MIB = 512
_RW: int = PTE_P | PTE_RW | PTE_A | PTE_D


@dataclass(slots=True)
class Loop:
    """One run of one loop of the bench guest."""

    us: float  # for each of what it does
    entries: float  # into the VMM, for each


def run_loop(width: Width, loop: str) -> Loop:
    """Between the marks that the guest prints around the loop."""
    marks: list[tuple[float, int, int]] = []
    count = COUNTS[loop]
    with Machine(memory_mib=32) as machine:
        cmdline = f"loop={loop} n={count}"
        dom = machine.create(guest_path("bench", width.value), memory_mib=16, cmdline=cmdline)
        vcpu = machine.vmm.host.domains[dom.domid].vcpus[0]

        def listen(data: bytes) -> None:
            if b"bench: begin" in data or b"bench: end" in data:
                stats = vcpu.stats
                entries = vcpu.calls.count + vcpu.exceptions + stats.table_writes
                marks.append((time.perf_counter(), entries, stats.table_writes))

        dom.console.on_output(listen)
        machine.run()
        if len(marks) != 2:
            sys.exit(f"the bench guest did not finish:\n{dom.console.output.decode()}")
    (began, before, stores_before), (ended, after, stores) = marks
    if loop == "entry":  # PAE guests store an entry by its halves
        count = stores - stores_before
    return Loop((ended - began) / count * 1e6, (after - before) / count)


class Tree:
    """The page tables that map a large guest's memory, each frame once, writable."""

    def __init__(self, width: Width) -> None:
        nr_frames = GUEST_MIB << 8
        memory = MachineMemory(nr_frames + 2048 << 12)
        self.frames = FrameTable(memory)
        hole = HOLE[width]
        size = 4 if width is Width.X86_32 else 8
        of_xen = bytes(size * (hole.end_slot - hole.first_slot))
        slots = XenSlots(hole.table, hole.first_slot, hole.end_slot, of_xen)
        self.tables = PageTables(self.frames, width, 1, slots)
        self.per_table = 4096 // size
        self.size = size
        self.pages = self.frames.allocate(1, nr_frames)
        below = self.pages
        for level in range(1, self.tables.mode.levels + 1):
            below = self._tables_over(below, self._first_slot(width, level), level)
        (self.root,) = below
        self.kind = TYPE_OF_LEVEL[self.tables.mode.levels]

    def _first_slot(self, width: Width, level: int) -> int:
        """PAE's only L2 has to be the one in slot 3."""
        return 3 if width is Width.X86_32P and level == 3 else 0

    def _tables_over(self, below: list[int], first: int, level: int) -> list[int]:
        made = []
        for at in range(0, len(below), self.per_table):
            (table,) = self.frames.allocate(1, 1)
            flags = PTE_P if level == 3 else _RW
            entries = [mfn << 12 | flags for mfn in below[at : at + self.per_table]]
            raw = b"".join(entry.to_bytes(self.size, "little") for entry in entries)
            self.frames.memory.write((table << 12) + first * self.size, raw)
            made.append(table)
        return made


def pin_and_unpin(width: Width) -> tuple[float, float]:
    """Seconds for each, the median of some."""
    tree = Tree(width)
    pins, unpins = [], []
    for _ in range(RUNS):
        pins.append(seconds(lambda: tree.tables.pin(tree.root, tree.kind)))
        unpins.append(seconds(lambda: tree.tables.unpin(tree.root)))
    return sorted(pins)[RUNS // 2], sorted(unpins)[RUNS // 2]


def main() -> None:
    """Measure and print."""
    report = Report("Page tables")
    for loop, name in NAMES.items():
        for width in Width:
            runs = sorted((run_loop(width, loop) for _ in range(RUNS)), key=lambda run: run.us)
            middle = runs[RUNS // 2]
            report.us(f"{name}, {width.value}", middle.us, BARS[loop])
            entries = f"{middle.entries:.3g}"
            report.figure("  entries into the VMM", entries, f"paper: {PAPER[loop]}")
            if loop == "batch":
                report.figure("  updates per second", f"{1e6 / middle.us:,.0f}", ">= 500,000")
    for width in Width:
        pin, unpin = pin_and_unpin(width)
        what = f"the tables of {GUEST_MIB} MiB, {width.value}"
        report.figure(f"pin {what}", f"{pin * 1000:.1f} ms", "well under 500 ms")
        report.figure(f"unpin {what}", f"{unpin * 1000:.1f} ms", "well under 500 ms")
    report.show()


if __name__ == "__main__":
    main()
