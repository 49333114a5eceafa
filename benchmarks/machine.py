"""What the machine costs: a null hypercall, a fault, a system call, and guest code at all.

python -m benchmarks.machine
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable

import capstone
from elftools.elf.elffile import ELFFile
from unicorn import Uc, x86_const
from unicorn import unicorn_const as const

from benchmarks._harness import RUNS, Report, median, seconds
from guests import guest_path
from hypervisor.abi.width import Width
from hypervisor.api import Machine
from hypervisor.probes import Entry

COUNTS = {
    "hypercall": 1_000_000,
    "direct": 1_000_000,
    "bounced": 500_000,
    "syscall": 100_000,
    "fault": 20_000,
    "touch": 20_480,
    "port": 20_000,
}
ONLY_32_BIT = {"direct"}
COUNTED = 500  # rounds of a loop whose entries into the VMM are counted
GUEST_LOOPS = {"alu": 50_000_000, "load": 20_000_000, "store": 20_000_000}
BARS = {
    "hypercall": "3.0 x callback",
    "direct": "0.5 us",
    "bounced": "3 us",
    "touch": "30 us",
    "alu": ">= 0.6",
    "load": ">= 1.0",
    "store": ">= 1.0",
}
_LOW_BYTES = 16 << 20
_RETURN = 0xF0_0000
_STACK = 0xE0_0000
_TOP = 1 << 31


def guest_loop_seconds(width: Width, loop: str, count: int) -> float:
    """Host seconds between the marks that the bench guest prints around one loop."""
    marks: list[float] = []

    def listen(data: bytes) -> None:
        if b"bench: begin" in data or b"bench: end" in data:
            marks.append(time.perf_counter())

    with Machine(memory_mib=32) as machine:
        dom = machine.create(
            guest_path("bench", width.value), memory_mib=16, cmdline=f"loop={loop} n={count}"
        )
        dom.console.on_output(listen)
        machine.run()
        if len(marks) != 2:
            sys.exit(f"the bench guest did not finish:\n{dom.console.output.decode()}")
    return marks[1] - marks[0]


def entries_per_round(width: Width, loop: str) -> float:
    """How often one round of a loop enters the VMM: counted by a probe, as a trace would."""
    counts: list[int] = []
    entries = 0

    def count(entry: Entry) -> None:
        nonlocal entries
        entries += 1

    def listen(data: bytes) -> None:
        if b"bench: begin" in data or b"bench: end" in data:
            counts.append(entries)

    with Machine(memory_mib=32) as machine:
        dom = machine.create(
            guest_path("bench", width.value), memory_mib=16, cmdline=f"loop={loop} n={COUNTED}"
        )
        dom.console.on_output(listen)
        machine.on_entry.append(count)
        machine.run()
    before, after = counts
    return (after - before) / COUNTED


def stock_loop_seconds(loop: str, count: int) -> float:
    """The same function of the same kernel on the stock engine, without paging and hooks."""
    code, data = _moved_function(f"{loop}_loop")
    uc = Uc(const.UC_ARCH_X86, const.UC_MODE_64)
    uc.mem_map(0, _LOW_BYTES)
    uc.mem_write(code[0], code[1])
    uc.mem_write(_STACK, _RETURN.to_bytes(8, "little"))
    uc.reg_write(x86_const.UC_X86_REG_RSP, _STACK)
    uc.reg_write(x86_const.UC_X86_REG_RDI, count)
    assert data < _LOW_BYTES
    return seconds(lambda: uc.emu_start(code[0], _RETURN))


def _moved_function(name: str) -> tuple[tuple[int, bytes], int]:
    """A function of the bench guest, moved with its data from the top 2 GiB to the lowest: its
    address and code, and the highest address that it uses."""
    elf = ELFFile(io.BytesIO(guest_path("bench", "x86_64").read_bytes()))
    symbols = elf.get_section_by_name(".symtab")
    (function,) = symbols.get_symbol_by_name(name)
    at, size = function["st_value"], function["st_size"]
    text = next(s for s in elf.iter_segments() if 0 <= at - s["p_vaddr"] < s["p_filesz"])
    code = bytearray(text.data()[at - text["p_vaddr"] :][:size])
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    disassembler.detail = True
    highest = 0
    for insn in disassembler.disasm(bytes(code), at):
        place = insn.address - at + insn.disp_offset
        displacement = int.from_bytes(code[place : place + 4], "little")
        if insn.disp_size == 4 and displacement >> 31:
            code[place : place + 4] = (displacement & ~_TOP).to_bytes(4, "little")
            highest = max(highest, displacement & ~_TOP)
    return (at & _TOP - 1, bytes(code)), highest


def main() -> None:
    """Measure and print."""
    report = Report("The machine")
    for loop, count in COUNTS.items():
        for width in Width:
            if width.is_64 and loop in ONLY_32_BIT:
                continue
            entries = entries_per_round(width, loop)
            each = median(_measuring(width, loop, count)) / count * 1e6
            what = f"{loop}, {width.value} ({entries:.1f} entries)"
            report.us(what, each, BARS.get(loop, ""))
    for loop, count in GUEST_LOOPS.items():
        here, stock = [], []
        for _ in range(RUNS):  # side by side, so that the host's moods fall on both
            here.append(guest_loop_seconds(Width.X86_64, loop, count))
            stock.append(stock_loop_seconds(loop, count))
        ratio = sorted(stock)[RUNS // 2] / sorted(here)[RUNS // 2]
        report.figure(f"{loop} loop, x86_64", f"{ratio:.2f} of stock speed", BARS[loop])
    report.show()


def _measuring(width: Width, loop: str, count: int) -> Callable[[], float]:
    return lambda: guest_loop_seconds(width, loop, count)


if __name__ == "__main__":
    main()
