"""Calls of the owner by `int` and `syscall`: by machine code, or the same in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from hypervisor.machine.calls import LOG_ENTRIES, CallLog, Calls, Function
from hypervisor.machine.cpu import StateAccess, Stop
from hypervisor.machine.state import HF_CPL, HF_CS64
from tests.support.board import CODE, DATA, RAX, RBP, RBX, RCX, RDI, RDX, RSI, Board

R8, R10, R11 = 8, 10, 11
ATTENTION = DATA + 0x100
WAYS = [(StateAccess.LIVE, None), (StateAccess.LIVE, False), (StateAccess.COPIES, None)]
INSTRUCTION = {"int": "cd82", "syscall": "0f05"}
REGISTERS = {"int": (RBX, RCX, RDX, RSI, RDI), "syscall": (RDI, RSI, RDX, R10, R8)}
BITS = {"int": 32, "syscall": 64}
UD2 = "0f0b"


@dataclass
class Caller:
    """A board whose CPL 1 may call three functions, and what it called."""

    board: Board
    kind: str
    log: CallLog = field(default_factory=CallLog)
    called: list[Any] = field(default_factory=list)
    result: Callable[[], int] = lambda: -38
    attended: int = 0

    def __post_init__(self) -> None:
        table = (Function(self._none, 0), None, Function(self._two, 2), Function(self._five, 5))
        is_64 = self.kind == "syscall"
        mask, value = (HF_CPL | HF_CS64, HF_CS64 | 1) if is_64 else (HF_CPL, 1)
        other = Function(self._other, 0)
        calls = Calls(
            table, other, REGISTERS[self.kind], BITS[self.kind], mask, value, self._attend
        )
        cpu = self.board.cpu
        if is_64:
            cpu.serve_syscall(calls)
        else:
            cpu.serve_int(0x82, calls)
        cpu.serve_caller(self.log, ATTENTION)
        self.board.handler = lambda kind, number, error_code: cpu.request_stop()

    def _none(self) -> int:
        self.called.append(("none", self.board.cpu.state.rip))
        return self.result()

    def _two(self, a: int, b: int) -> int:
        self.called.append(("two", a, b))
        return self.result()

    def _five(self, *args: int) -> int:
        self.called.append(("five", *args))
        return self.result()

    def _other(self) -> int:
        self.called.append(("other", self.board.cpu.state.gpr(RAX)))
        return self.result()

    def _attend(self) -> None:
        self.attended += 1
        assert self.board.gpr(RAX) == self.result() & self.mask, "the result is there already"

    @property
    def mask(self) -> int:
        return (1 << BITS[self.kind]) - 1

    def call(self, number: int, cpl: int = 1, count: int = 1, **registers: int) -> None:
        """Execute the instruction, `count` times, up to an ud2."""
        board = self.board
        board.load(INSTRUCTION[self.kind] * count + UD2)
        board.start(CODE, cpl)
        for register, value in enumerate(registers.values()):
            board.cpu.state.set_gpr(REGISTERS[self.kind][register], value)
        board.cpu.state.set_gpr(RAX, number)
        board.cpu.state.set_gpr(RBP, 0x1234)
        board.run()


@pytest.fixture(params=["int-legacy32", "int-pae", "int-long", "syscall-long"])
def caller(
    request: pytest.FixtureRequest, way: tuple[StateAccess, bool | None]
) -> Iterator[Caller]:
    kind, mode = request.param.split("-")
    board = Board(mode, *way)
    yield Caller(board, kind)
    board.cpu.close()


@pytest.fixture(params=WAYS, ids=["direct", "python-counter", "copies"])
def way(request: pytest.FixtureRequest) -> tuple[StateAccess, bool | None]:
    found: tuple[StateAccess, bool | None] = request.param
    return found


def test_result_is_in_rax_and_nothing_else_changed(caller: Caller) -> None:
    caller.call(0)
    assert caller.called == [("none", CODE + 2)]
    assert caller.board.cpu.state.gpr(RAX) == -38 & caller.mask
    assert caller.board.seen == [("exception", 6, 0, CODE + 2, 0)]
    assert caller.board.gpr(RBP) == 0x1234


def test_arguments_are_the_registers_in_their_width(caller: Caller) -> None:
    values = [0x1111_2222_3333_4440 + n for n in range(5)]
    arguments = {f"r{n}": value for n, value in enumerate(values)}
    if caller.board.mode != "long":
        arguments = {name: value & 0xFFFF_FFFF for name, value in arguments.items()}
    caller.call(3, **arguments)
    caller.call(2, **arguments)
    expected = [value & caller.mask for value in values]
    assert caller.called == [("five", *expected), ("two", *expected[:2])]


@pytest.mark.parametrize("number", [1, 4, 5, 1000, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_gaps_and_numbers_beyond_the_table_go_to_other(caller: Caller, number: int) -> None:
    caller.call(number)
    assert caller.called == [("other", number)]
    assert caller.log.latest() == [(number, CODE + 2)]


def test_number_is_as_wide_as_the_registers(caller: Caller) -> None:
    if caller.board.mode != "long":
        return
    caller.call(1 << 32)
    name = caller.called[0][0]
    assert name == ("other" if caller.kind == "syscall" else "none")


def test_another_privilege_is_no_call(caller: Caller) -> None:
    caller.call(0, cpl=3)
    assert caller.called == []
    assert caller.log.count == 0
    kind, number = caller.board.seen[0][:2]
    assert (kind, number) == (("int", 0x82) if caller.kind == "int" else ("syscall", 0))


def test_another_vector_is_no_call(caller: Caller) -> None:
    caller.board.run("cd81" + UD2, 1)
    assert caller.called == []
    assert caller.board.seen[0][:2] == ("int", 0x81)


def test_syscall_leaves_rip_and_flags_where_the_instruction_does(
    way: tuple[StateAccess, bool | None],
) -> None:
    board = Board("long", *way)
    caller = Caller(board, "syscall")
    for cpl in (1, 3):
        board.load("29c0 f9 90 0f05" + UD2)  # sub eax, eax; stc; nop; syscall
        board.start(CODE, cpl)
        board.run()
        assert board.gpr(RCX) == CODE + 6
        assert board.gpr(R11) & 0x8D5 == 0x45  # ZF, PF, CF
        assert board.gpr(R11) == board.cpu.state.rflags
    assert len(caller.called) == 1


def test_calls_are_noted_the_latest_last(caller: Caller) -> None:
    count = LOG_ENTRIES + 4
    caller.result = lambda: 2
    caller.call(0, count=count)
    assert caller.log.count == count
    assert caller.log.latest() == [
        (2, CODE + 2 * n) for n in range(count - LOG_ENTRIES + 1, count + 1)
    ]


def test_latest_of_few_are_all_of_them() -> None:
    log = CallLog()
    log.note(5, 0x10)
    log.note(6, 0x20)
    assert (log.count, log.latest()) == (2, [(5, 0x10), (6, 0x20)])


@pytest.mark.parametrize(("waits", "masked", "attended"), [(0, 0, 0), (1, 0, 1), (1, 1, 0)])
def test_what_waits_for_the_caller_is_attended_to(
    caller: Caller, waits: int, masked: int, attended: int
) -> None:
    caller.board.memory.write(ATTENTION, bytes([waits, masked]))
    caller.call(0)
    assert caller.attended == attended


def test_what_a_function_catches_comes_out_of_run(caller: Caller) -> None:
    def fail() -> int:
        caller.board.cpu.failed(KeyError("mine"))
        return 7

    caller.result = fail
    with pytest.raises(KeyError, match="mine"):
        caller.call(0)
    caller.result = lambda: 1
    caller.call(0)
    assert caller.board.gpr(RAX) == 1


def test_function_may_stop_the_run(caller: Caller) -> None:
    def stop() -> int:
        caller.board.cpu.request_stop()
        return 9

    caller.result = stop
    caller.call(0, count=3)
    assert caller.called == [("none", CODE + 2)]
    assert (caller.board.cpu.state.rip, caller.board.gpr(RAX)) == (CODE + 2, 9)


def test_step_over_a_call_is_one_instruction(caller: Caller) -> None:
    board = caller.board
    board.load("90" + INSTRUCTION[caller.kind] + "ffc3" + UD2)
    board.start(CODE, 1)
    rips = []
    for _ in range(3):
        assert board.cpu.step() is Stop.STEPPED
        rips.append(board.cpu.state.rip)
    assert rips == [CODE + 1, CODE + 3, CODE + 5]
    assert len(caller.called) == 1


def test_calls_take_the_time_of_their_instruction(caller: Caller) -> None:
    clock = caller.board.cpu.clock
    start = clock.now_ps()
    caller.call(0, count=5)
    assert clock.now_ps() - start == 5 * 2 * clock.ps_per_byte


def test_without_a_caller_nothing_waits(way: tuple[StateAccess, bool | None]) -> None:
    board = Board("pae", *way)
    called: list[int] = []

    def note() -> int:
        called.append(1)
        return 0

    board.cpu.serve_int(
        0x82, Calls((), Function(note, 0), REGISTERS["int"], 32, 0, 0, board.cpu.request_stop)
    )
    board.run("cd82" + UD2)
    assert called == [1]


def test_registers_are_those_of_the_instruction(board64: Board) -> None:
    calls = Calls((), Function(lambda: 0, 0), REGISTERS["int"], 32, 0, 0, lambda: None)
    with pytest.raises(ValueError, match="64 bits"):
        board64.cpu.serve_syscall(calls)
