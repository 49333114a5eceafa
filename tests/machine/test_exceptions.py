"""Exceptions: vector, error code, CR2 and place are those of Intel's manual, vol. 3A, chapter 6.

Code is given in hex, the instructions in the comment beside it.
"""

from __future__ import annotations

import pytest

from hypervisor.machine.cpu import Stop
from hypervisor.machine.state import CS
from tests.support.board import ABSENT, CODE, DATA, RAX, RCX, STACK, Board

PRESENT, WRITE, USER, FETCH = 1, 2, 4, 16
LOAD_ABSENT = "90 a1"  # nop; mov eax, [moffs]


def address(board: Board, value: int) -> str:
    """An absolute address as `mov eax, [moffs]` takes it."""
    return value.to_bytes(8 if board.mode == "long" else 4, "little").hex()


@pytest.mark.parametrize(
    ("code", "vector", "error_code", "offset"),
    [
        ("90 31c9 f7f1", 0, 0, 3),  # nop; xor ecx, ecx; div ecx
        ("90 0f0b", 6, 0, 1),  # nop; ud2
        ("90 f4", 13, 0, 1),  # nop; hlt
        ("90 fa", 13, 0, 1),  # nop; cli
        ("90 0f20c0", 13, 0, 1),  # nop; mov eax, cr0
        ("90 0f30", 13, 0, 1),  # nop; wrmsr
        ("90 b81f000000 8ed8", 13, 0x1C, 6),  # nop; mov eax, 0x1f; mov ds, eax
    ],
    ids=["#DE", "#UD", "hlt", "cli", "mov-cr0", "wrmsr", "selector"],
)
def test_fault_arrives_at_its_instruction(
    board: Board, code: str, vector: int, error_code: int, offset: int
) -> None:
    assert board.run(code) is Stop.REQUESTED
    assert board.seen == [("exception", vector, error_code, CODE + offset, 0)]


@pytest.mark.parametrize("cpl", [0, 1, 3])
def test_page_fault_of_a_load(board: Board, cpl: int) -> None:
    board.run(LOAD_ABSENT + address(board, ABSENT + 0x123), cpl)
    user = USER if cpl == 3 else 0
    assert board.seen == [("exception", 14, user, CODE + 1, ABSENT + 0x123)]


def test_page_fault_of_a_store_to_a_page_mapped_read_only(board: Board) -> None:
    board.map_page(DATA, DATA, writable=False)
    board.run("b800a00000 c700 01000000")  # mov eax, DATA; mov dword [rax], 1
    assert board.seen == [("exception", 14, PRESENT | WRITE | USER, CODE + 5, DATA)]


def test_supervisor_page_is_closed_to_ring_3_and_open_to_ring_1(board: Board) -> None:
    board.map_page(DATA, DATA, user=False)
    load = "a1" + address(board, DATA) + "0f0b"  # mov eax, [DATA]; ud2
    board.run(load, 3)
    board.run(load, 1)
    assert [exit_[:3] for exit_ in board.seen] == [
        ("exception", 14, PRESENT | USER),
        ("exception", 6, 0),
    ]


def test_second_page_fault_is_a_page_fault(board: Board) -> None:
    """Left alone, the engine makes a double fault of a fault that follows an unfinished one."""
    for fault in range(3):
        board.run(LOAD_ABSENT + address(board, ABSENT + fault))
    assert [exit_[1] for exit_ in board.seen] == [14, 14, 14]
    assert [exit_[4] for exit_ in board.seen] == [ABSENT, ABSENT + 1, ABSENT + 2]


def test_handler_may_go_on_behind_a_fault(board: Board) -> None:
    def skip(kind: str, number: int, error_code: int) -> None:
        if number == 6:
            board.cpu.request_stop()
        board.cpu.state.rip += 2

    board.handler = skip
    # xor ecx, ecx; div ecx; mov eax, 7; ud2
    assert board.run("31c9 f7f1 b807000000 0f0b") is Stop.REQUESTED
    assert [exit_[:2] for exit_ in board.seen] == [("exception", 0), ("exception", 6)]
    assert board.gpr(RAX) == 7


@pytest.mark.parametrize("vector", [0x03, 0x0E, 0x20, 0x80, 0xFF])
def test_int_n_is_no_fault(board: Board, vector: int) -> None:
    """Not even int 14 or int 8: the instruction is behind it."""
    code = "cc" if vector == 3 else f"cd{vector:02x}"
    board.run(f"90 {code} 90")
    assert board.seen == [("int", vector, 0, CODE + 1 + len(code) // 2, 0)]


def test_single_step_trap_comes_after_each_instruction(board: Board) -> None:
    def go_on(kind: str, number: int, error_code: int) -> None:
        if len(board.seen) == 3:
            board.cpu.request_stop()

    board.handler = go_on
    board.load("90 6690 0f1f00 90")
    board.start(CODE)
    board.cpu.state.rflags |= 1 << 8  # TF
    board.run()
    assert board.seen == [("exception", 1, 0, CODE + at, 0) for at in (1, 3, 6)]


def test_fetch_from_a_page_that_is_absent(board: Board) -> None:
    # mov eax, ABSENT; jmp rax
    board.run("b800003000 ffe0")
    assert [exit_[:2] for exit_ in board.seen] == [("exception", 14)]
    assert board.seen[0][3:] == (ABSENT, ABSENT)
    assert board.seen[0][2] & ~FETCH == USER


def test_fetch_from_a_page_that_is_no_code(board: Board) -> None:
    if board.mode == "legacy32":
        pytest.skip("entries of 32 bits have no such right")
    board.map_page(DATA, DATA, executable=False)
    board.run("b800a00000 ffe0")  # mov eax, DATA; jmp rax
    assert board.seen == [("exception", 14, PRESENT | USER | FETCH, DATA, DATA)]


@pytest.mark.parametrize("behind", ["absent", "no code"])
@pytest.mark.parametrize("before_end", [1, 2, 3, 4])
def test_instruction_that_crosses_into_a_page_faults_itself(
    board: Board, before_end: int, behind: str
) -> None:
    """What stands before it in the same block is done, and counted, first."""
    if behind == "no code" and board.mode == "legacy32":
        pytest.skip("entries of 32 bits have no such right")
    if behind == "absent":
        board.map_page(DATA + 0x1000, None)
    else:
        board.map_page(DATA + 0x1000, DATA + 0x1000, executable=False)
    crossing = DATA + 0x1000 - before_end
    start = crossing - 4
    board.load("ffc1 ffc1 b878563412", start)  # inc ecx, twice; mov eax, imm32
    board.start(start)
    began = board.cpu.clock.now_ps()
    board.run()
    assert [exit_[:2] + exit_[3:] for exit_ in board.seen] == [
        ("exception", 14, crossing, DATA + 0x1000)
    ]
    assert board.gpr(RCX) == 2
    assert board.times[0] - began == 4 * board.cpu.clock.ps_per_byte


def test_crossing_instruction_goes_on_when_its_page_has_come(board: Board) -> None:
    def map_it(kind: str, number: int, error_code: int) -> None:
        if number == 14:
            board.map_page(DATA + 0x1000, DATA + 0x1000)
        else:
            board.cpu.request_stop()

    board.handler = map_it
    board.map_page(DATA + 0x1000, None)
    board.load("ffc1 b878563412 0f0b", DATA + 0x1000 - 4)  # inc ecx; mov eax, imm32; ud2
    board.start(DATA + 0x1000 - 4)
    board.run()
    assert [exit_[1] for exit_ in board.seen] == [14, 6]
    assert (board.gpr(RCX), board.gpr(RAX)) == (1, 0x1234_5678)


def test_interrupted_repeat_faults_where_it_got_to(board: Board) -> None:
    # cld; mov edi, ABSENT - 8; mov ecx, 16; rep stosb
    board.run("fc bff8ff2f00 b910000000 f3aa")
    assert board.seen == [("exception", 14, WRITE | USER, CODE + 11, ABSENT)]
    assert board.gpr(RCX) == 8


def test_stack_fault_of_a_push_leaves_the_stack_pointer(board: Board) -> None:
    board.map_page(STACK - 0x1000, None)
    board.run("50 0f0b")  # push; ud2
    assert board.seen[0][1] == 14
    assert board.gpr(4) == STACK


@pytest.mark.parametrize("cpl", [0, 1, 2, 3])
def test_any_ring_can_be_entered(board: Board, cpl: int) -> None:
    board.run("8cc8 0f0b", cpl)  # mov eax, cs; ud2
    assert board.gpr(RAX) & 3 == cpl
    assert board.cpu.state.cpl == cpl


def test_code_of_32_bits_runs_in_long_mode(board64: Board) -> None:
    board64.load("48 0f0b")  # in 64-bit code rex ud2, in 32-bit code dec eax; ud2
    board64.start(CODE)
    board64.cpu.state.set_segment(CS, 0x23, 0, 0xFFFF_FFFF, 0x00CF_FB00)
    board64.cpu.state.set_gpr(RAX, 5)
    board64.run()
    assert board64.seen == [("exception", 6, 0, CODE + 1, 0)]
    assert board64.gpr(RAX) == 4
