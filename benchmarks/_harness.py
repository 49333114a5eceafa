"""What every benchmark measures beside itself: the engine alone, on this host, in this run.

Microseconds differ from host to host; their ratio to the same run's empty callback and to its ALU
loop do not differ much. So each figure is the median of some runs, printed with both ratios.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import unicorn
from rich.console import Console
from rich.table import Table
from unicorn import unicorn_const as const
from unicorn import x86_const

RUNS: Final = 7
CODE: Final = 0x10_0000
STACK: Final = 0x20_0000
_EMPTY_LOOP: Final = bytes.fromhex("cd82 ffc9 75fa")  # int 0x82; dec ecx; jnz
_ALU_LOOP: Final = bytes.fromhex("48ffc0" * 8 + "ffc9 75e4")  # eight inc rax; dec ecx; jnz


def median(measure: Callable[[], float], runs: int = RUNS) -> float:
    """The median of `runs` calls of `measure`."""
    return statistics.median(measure() for _ in range(runs))


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class StockEngine:
    """The wheel as it comes: long mode, no paging, no hooks."""

    def __init__(self) -> None:
        self.uc = unicorn.Uc(const.UC_ARCH_X86, const.UC_MODE_64)
        self.uc.mem_map(CODE, 0x20_0000)

    def loop_seconds(self, code: bytes, count: int) -> float:
        """Run a loop over ECX to its end."""
        self.uc.mem_write(CODE, code)
        self.uc.reg_write(x86_const.UC_X86_REG_RCX, count)
        return seconds(lambda: self.uc.emu_start(CODE, CODE + len(code)))


def empty_callback_us(count: int = 200_000) -> float:
    """One `int` to an empty Python function that C calls, loop included."""
    engine = StockEngine()

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
    def empty(uc: int, vector: int, user_data: int) -> None:
        pass

    hook = ctypes.c_size_t()
    unicorn.unicorn_py3.unicorn.uclib.uc_hook_add(
        engine.uc._uch,
        ctypes.byref(hook),
        ctypes.c_int(const.UC_HOOK_INTR),
        ctypes.cast(empty, ctypes.c_void_p),
        None,
        ctypes.c_uint64(1),
        ctypes.c_uint64(0),
    )
    return engine.loop_seconds(_EMPTY_LOOP, count) / count * 1e6


def alu_loop_us(count: int = 20_000_000) -> float:
    """Eight dependent additions and a branch."""
    return StockEngine().loop_seconds(_ALU_LOOP, count) / count * 1e6


@dataclass(slots=True)
class Report:
    """Figures of one run, beside that run's own measures."""

    title: str
    callback_us: float = field(default_factory=lambda: median(empty_callback_us))
    alu_us: float = field(default_factory=lambda: median(alu_loop_us))
    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)

    def us(self, name: str, value: float, bar: str = "") -> None:
        """A cost in us, with its ratios."""
        ratios = f"{value / self.callback_us:.2f}", f"{value / self.alu_us:,.0f}"
        self.rows.append((name, f"{value:.3f} us", *ratios, bar))

    def figure(self, name: str, value: str, bar: str = "") -> None:
        """Anything else."""
        self.rows.append((name, value, "", "", bar))

    def show(self) -> None:
        """Print all."""
        self.us("(empty callback)", self.callback_us)
        self.us("(ALU loop, one round)", self.alu_us)
        table = Table(title=self.title)
        for heading in ("what", "median", "x callback", "x ALU round", "bar"):
            table.add_column(heading, justify="left" if heading in ("what", "bar") else "right")
        for row in self.rows:
            table.add_row(*row)
        Console(width=100).print(table)
