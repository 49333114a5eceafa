"""A CPU with a little memory and page tables, and no Xen: what the tests of the machine run on.

All of memory is mapped where it is, in pages of 4 KiB that user mode may use, in any of the three
paging modes. What the CPU reports is written down as it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from hypervisor.machine.cpu import Cpu, StateAccess, Stop
from hypervisor.machine.memory import MachineMemory
from hypervisor.machine.state import CS, DS, ES, SS

Mode = Literal["long", "pae", "legacy32"]
MODES: Final[tuple[Mode, ...]] = ("long", "pae", "legacy32")

CODE: Final = 0x1000
STACK: Final = 0x9000
DATA: Final = 0xA000
ABSENT: Final = 0x30_0000  # the first page that is not mapped
MEMORY_BYTES: Final = 4 << 20

_TABLES: Final = 0x3F_0000
_P_RW_US: Final = 7
_NX: Final = 1 << 63
_CODE_SEGMENT: Final = {"long": 0x00AF_FB00, "pae": 0x00CF_FB00, "legacy32": 0x00CF_FB00}
_DATA_SEGMENT: Final = 0x00CF_F300
_FLAT: Final = 0xFFFF_FFFF

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)


class Board:
    """A CPU whose exits are recorded: (kind, vector or number, error code, rip, cr2)."""

    def __init__(
        self,
        mode: Mode = "long",
        access: StateAccess = StateAccess.AUTO,
        native_clock: bool | None = None,
        host_clock: bool = False,
    ) -> None:
        self.mode = mode
        self.memory = MachineMemory(MEMORY_BYTES)
        self.cpu = Cpu(
            self.memory, self, access=access, native_clock=native_clock, host_clock=host_clock
        )
        self.seen: list[tuple[Any, ...]] = []
        self.times: list[int] = []
        self.checksums: list[int] = []
        self.handler: Callable[[str, int, int], None] = self.stop
        self.tsc = 0x1_2345_6789
        self.allowed_ports: set[int] = set()  # by opcode
        self._map_all()
        self.start(CODE)

    # --- memory ----------------------------------------------------------------------------------
    @property
    def _entry_bytes(self) -> int:
        return 4 if self.mode == "legacy32" else 8

    def _map_all(self) -> None:
        """Identity, up to ABSENT: one table of leaves for each table's worth of memory."""
        per_table = 4096 // self._entry_bytes
        self._leaves = _TABLES + 0x4000
        for page in range(ABSENT >> 12):
            self._put(self._leaves, page, page << 12 | _P_RW_US)
        directory = _TABLES + 0x3000
        for table in range(-(-(MEMORY_BYTES >> 12) // per_table)):
            self._put(directory, table, self._leaves + table * 4096 | _P_RW_US)
        self.root = directory
        if self.mode == "pae":
            self.root = _TABLES + 0x2000
            self._put(self.root, 0, directory | 1)
        if self.mode == "long":
            self._put(_TABLES + 0x2000, 0, directory | _P_RW_US)
            self._put(_TABLES + 0x1000, 0, _TABLES + 0x2000 | _P_RW_US)
            self.root = _TABLES + 0x1000

    def _put(self, table: int, index: int, value: int) -> None:
        size = self._entry_bytes
        self.memory.write(table + index * size, value.to_bytes(size, "little"))

    def map_page(
        self,
        vaddr: int,
        maddr: int | None,
        *,
        writable: bool = True,
        user: bool = True,
        executable: bool = True,
    ) -> None:
        """Set one page's entry; `maddr` None: not present. Flushes its translation."""
        entry = 0
        if maddr is not None:
            entry = maddr | 1 | writable << 1 | user << 2
            if not executable and self.mode != "legacy32":
                entry |= _NX
        self._put(self._leaves, vaddr >> 12, entry)
        self.cpu.flush_tlb_page(vaddr)

    def load(self, code: str | bytes, at: int = CODE) -> None:
        """Put machine code (hex, with spaces) into memory."""
        data = bytes.fromhex(code) if isinstance(code, str) else code
        self.memory.write(at, data)
        self.cpu.code_written(at, len(data))

    # --- the CPU --------------------------------------------------------------------------------
    def start(self, rip: int, cpl: int = 3) -> None:
        """Fresh registers, flat segments, at `rip` in ring `cpl`."""
        cpu, state = self.cpu, self.cpu.state
        state.load(cpu.initial_state(self.mode))
        state.cr3 = self.root
        state.set_segment(CS, 0x30 | cpl, 0, _FLAT, _CODE_SEGMENT[self.mode])
        for register in (ES, SS, DS):
            state.set_segment(register, 0x28 | cpl, 0, _FLAT, _DATA_SEGMENT)
        state.set_cpl(cpl)
        state.rip = rip
        state.set_gpr(RSP, STACK)
        cpu.flush_tlb()

    def run(self, code: str | bytes = b"", cpl: int = 3, limit_bytes: int = 1 << 20) -> Stop:
        """Run `code` (or go on) for at most about `limit_bytes` of instructions."""
        if code:
            self.load(code)
            self.start(CODE, cpl)
        clock = self.cpu.clock
        return self.cpu.run(clock.now_ps() + limit_bytes * clock.ps_per_byte)

    def gpr(self, number: int) -> int:
        """A general register as its mode has it."""
        value = self.cpu.state.gpr(number)
        return value if self.mode == "long" else value & 0xFFFF_FFFF

    # --- exits -----------------------------------------------------------------------------------
    def stop(self, kind: str, number: int, error_code: int) -> None:
        """What happens at an exit unless a test says otherwise: leave the engine."""
        self.cpu.request_stop()

    def _note(self, kind: str, number: int = 0, error_code: int = 0) -> None:
        state = self.cpu.state
        cr2 = state.cr2 if (kind, number) == ("exception", 14) else 0
        self.seen.append((kind, number, error_code, state.rip, cr2))
        self.times.append(self.cpu.clock.now_ps())
        self.checksums.append(state.checksum())
        self.handler(kind, number, error_code)

    def exception(self, vector: int, error_code: int) -> None:
        """Recorded."""
        self._note("exception", vector, error_code)

    def soft_interrupt(self, vector: int) -> None:
        """Recorded."""
        self._note("int", vector)

    def syscall(self) -> None:
        """Recorded."""
        self._note("syscall")

    def sysenter(self) -> None:
        """Recorded."""
        self._note("sysenter")

    def cpuid(self) -> None:
        """Recorded; answers with four numbers that no real CPU gives."""
        leaf = self.gpr(RAX)
        for register, value in ((RAX, leaf + 1), (RBX, 0xB), (RCX, 0xC), (RDX, 0xD)):
            self.cpu.state.set_gpr(register, value)
        self._note("cpuid", leaf)

    def rdtsc(self) -> int:
        """Recorded."""
        self._note("rdtsc")
        return self.tsc

    def port_allowed(self, code: bytes) -> bool:
        """As `allowed_ports` says, of the instruction's first byte."""
        if code[0] in self.allowed_ports:
            self._note("allowed", code[0])
            return True
        return False

    def port_in(self, port: int, size: int) -> int:
        """Recorded; a port reads as its number."""
        self._note("in", port, size)
        return port

    def port_out(self, port: int, size: int, value: int) -> None:
        """Recorded."""
        self._note("out", port, value)
