"""Stops are exact: at an instruction's boundary, nothing lost, nothing done twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from hypervisor.machine.cpu import StateAccess, Stop
from tests.support.board import CODE, DATA, RAX, RCX, Board, Mode
from tests.support.storm import storm

COUNT_UP = "ffc0 ebfc"  # again: inc eax; jmp again


@pytest.fixture(params=[None, False], ids=["native", "python"])
def any_counter(request: pytest.FixtureRequest, access: StateAccess) -> Iterator[Board]:
    """A board in long mode with either kind of block counter."""
    made = Board("long", access, request.param)
    yield made
    made.cpu.close()


def test_request_in_an_exit_stops_behind_the_handler(board: Board) -> None:
    assert board.run("ffc0 cd20 ffc0 cd20") is Stop.REQUESTED
    assert board.gpr(RAX) == 1
    assert board.run() is Stop.REQUESTED
    assert board.gpr(RAX) == 2


@pytest.mark.parametrize("instructions", [1, 2, 3, 100, 1001])
def test_deadline_stops_at_the_first_boundary_at_or_behind_it(
    any_counter: Board, instructions: int
) -> None:
    """Each of the loop's instructions is two bytes long: time and the counter must agree."""
    board = any_counter
    board.load(COUNT_UP)
    board.start(CODE)
    clock = board.cpu.clock
    began = clock.now_ps()
    for sooner in (0, 1):
        board.start(CODE)
        began = clock.now_ps()
        length = 2 * instructions * clock.ps_per_byte
        assert board.cpu.run(began + length - sooner) is Stop.DEADLINE
        assert clock.now_ps() == began + length
        assert board.gpr(RAX) == (instructions + 1) // 2
        assert board.cpu.state.rip == CODE + 2 * (instructions % 2)


def test_deadline_in_the_past_does_nothing(board: Board) -> None:
    board.load(COUNT_UP)
    board.start(CODE)
    assert board.cpu.run(0) is Stop.DEADLINE
    assert board.cpu.state.rip == CODE


@pytest.mark.parametrize("instructions", [0, 1, 2, 100, 1001])
def test_deadline_brought_forward_in_an_exit_is_kept_as_exactly(
    any_counter: Board, instructions: int
) -> None:
    """int 0x20, then a loop of instructions of two bytes; time is told from behind the int."""
    board = any_counter
    clock = board.cpu.clock
    length = 2 * instructions * clock.ps_per_byte
    board.handler = lambda *_: board.cpu.bring_forward(clock.now_ps() + length)
    board.load("cd20" + COUNT_UP)
    board.start(CODE)
    began = clock.now_ps()
    assert board.cpu.run(began + 10**9) is Stop.DEADLINE
    assert clock.now_ps() == began + 2 * clock.ps_per_byte + length
    assert board.gpr(RAX) == (instructions + 1) // 2


def test_deadline_is_never_put_off_in_an_exit(any_counter: Board) -> None:
    board = any_counter
    clock = board.cpu.clock
    board.handler = lambda *_: board.cpu.bring_forward(clock.now_ps() + 10**9)
    board.load("cd20" + COUNT_UP)
    board.start(CODE)
    began = clock.now_ps()
    assert board.cpu.run(began + 6 * clock.ps_per_byte) is Stop.DEADLINE
    assert clock.now_ps() == began + 6 * clock.ps_per_byte


def test_deadline_in_a_repeated_instruction_counts_its_iterations(any_counter: Board) -> None:
    board = any_counter
    board.load("fc bf00a00000 b900010000 f3aa 0f0b")  # cld; mov edi; mov ecx, 256; rep stosb
    board.start(CODE)
    clock = board.cpu.clock
    board.cpu.run(clock.now_ps() + (11 + 2 * 10) * clock.ps_per_byte)
    assert board.cpu.state.rip == CODE + 11
    assert board.gpr(RCX) == 256 - 10


def test_step_does_one_instruction(board: Board) -> None:
    board.load("ffc0 b905000000 ebf7")
    board.start(CODE)
    rips = []
    for _ in range(4):
        assert board.cpu.step() is Stop.STEPPED
        rips.append(board.cpu.state.rip)
    assert rips == [CODE + 2, CODE + 7, CODE, CODE + 2]
    assert board.gpr(RAX) == 2


def test_step_into_an_exit_handles_it(board: Board) -> None:
    board.handler = lambda kind, number, error_code: None
    board.load("cd20 ffc0")
    board.start(CODE)
    assert board.cpu.step() is Stop.STEPPED
    assert board.seen == [("int", 0x20, 0, CODE + 2, 0)]
    assert board.gpr(RAX) == 0


def test_kick_before_the_run_is_not_lost(board: Board) -> None:
    board.load(COUNT_UP)
    board.start(CODE)
    board.cpu.kick()
    assert board.run() is Stop.KICKED
    assert board.cpu.state.rip == CODE


def test_kick_from_a_thread_ends_an_endless_loop(board: Board) -> None:
    board.load(COUNT_UP)
    board.start(CODE)
    timer = threading.Timer(0.02, board.cpu.kick)
    timer.start()
    assert board.cpu.run(None) is Stop.KICKED
    timer.join()


def test_no_increment_is_lost_or_doubled_under_a_storm_of_stops(any_counter: Board) -> None:
    """Stopped at a wrong moment, the engine repeats the store of a locked instruction."""
    board = any_counter
    rounds = 100_000 if board.cpu.is_native_clock else 5_000
    # mov ebx, DATA; mov ecx, rounds; again: lock incl [rbx]; dec ecx; jnz again; ud2
    board.load(
        "bb00a00000 b9" + rounds.to_bytes(4, "little").hex() + "f0ff03 f0ff4304 ffc9 75f5 0f0b"
    )
    kicked = done = 0
    with storm(board.cpu):
        while kicked <= 5:  # a busy host may give the storm no turn at first
            board.start(CODE)
            while (stop := board.cpu.run(None)) is Stop.KICKED:
                kicked += 1
            done += rounds
            assert stop is Stop.REQUESTED
            assert board.gpr(RCX) == 0
    assert [board.memory.u32[(DATA >> 2) + n] for n in (0, 1)] == [done, done]


def test_breakpoint_stops_before_its_instruction_and_lets_it_pass(board: Board) -> None:
    board.load(COUNT_UP)
    board.start(CODE)
    board.cpu.add_breakpoint(CODE + 2)
    for count in (1, 2, 3):
        assert board.run() is Stop.BREAKPOINT
        assert board.cpu.state.rip == CODE + 2
        assert board.gpr(RAX) == count
    board.cpu.remove_breakpoint(CODE + 2)
    assert board.run(limit_bytes=100) is Stop.DEADLINE


def test_breakpoint_in_code_that_already_ran(board: Board) -> None:
    board.load(COUNT_UP)
    board.start(CODE)
    board.run(limit_bytes=400)
    board.cpu.add_breakpoint(CODE)
    assert board.run() is Stop.BREAKPOINT
    assert board.cpu.state.rip == CODE


def test_breakpoint_survives_that_all_code_is_dropped(board: Board) -> None:
    board.cpu.add_breakpoint(CODE + 2)
    board.load(COUNT_UP)
    board.start(CODE)
    assert board.run() is Stop.BREAKPOINT
    board.cpu.drop_code()
    board.cpu.step()
    assert board.run() is Stop.BREAKPOINT
    assert board.gpr(RAX) == 2


class Oops(Exception):
    """What a handler raises."""


EXITS = {
    "exception": "0f0b",
    "fault": "f4",
    "int": "cd20",
    "sysenter": "0f34",
    "cpuid": "0fa2",
    "rdtsc": "0f31",
    "in": "e460",
    "out": "e660",
}


@pytest.mark.parametrize("exit_", [*EXITS, "syscall", "soft"])
def test_exception_raised_in_a_handler_comes_out_of_run(
    mode: Mode, access: StateAccess, exit_: str
) -> None:
    """And the CPU can be used again afterwards."""
    if exit_ == "syscall" and mode != "long":
        return  # not an instruction there
    board = Board(mode, access)

    def fail(*_: object) -> None:
        raise Oops(exit_)

    board.handler = fail
    board.load({"syscall": "0f05", "soft": "cd99"}.get(exit_) or EXITS[exit_])
    board.start(CODE, 1)
    board.cpu.state.rflags |= 3 << 12  # ports are permitted
    with pytest.raises(Oops, match=exit_):
        board.run()
    board.handler = board.stop
    assert board.run("b807000000 cd20") is Stop.REQUESTED
    assert board.gpr(RAX) == 7
    board.cpu.close()


def test_exception_raised_in_a_handler_comes_out_of_step(board: Board) -> None:
    def fail(*_: object) -> None:
        raise Oops

    board.handler = fail
    board.load("cd20")
    board.start(CODE)
    with pytest.raises(Oops):
        board.cpu.step()


def test_stop_is_exact_whatever_stops(access: StateAccess) -> None:
    """One program, stopped in five ways as often as can be, ends the same."""

    def stepping(board: Board) -> Stop:
        for _ in range(7):
            board.cpu.step()
        return board.cpu.run(board.cpu.clock.now_ps() + 3001)

    ways: list[Callable[[Board], Stop]] = [
        lambda board: board.cpu.run(None),
        lambda board: board.cpu.run(board.cpu.clock.now_ps() + 1234),
        stepping,
    ]
    ends = set()
    for way in ways:
        board = Board("long", access)
        began = board.cpu.clock.now_ps()
        # mov ecx, 300; again: imul eax, ecx; add eax, 77; dec ecx; jnz again; ud2
        board.load("b92c010000 0fafc1 83c04d ffc9 75f6 0f0b")
        board.start(CODE)
        while not board.seen:
            way(board)
        ends.add((board.gpr(RAX), board.gpr(RCX), board.times[0] - began))
        board.cpu.close()
    assert len(ends) == 1
