"""Instructions that the owner answers: system calls, cpuid, the time-stamp counter, ports."""

from __future__ import annotations

import pytest

from hypervisor.machine._code_watch import CodeWatch
from hypervisor.machine.cpu import Stop
from hypervisor.machine.state import CS
from tests.support.board import CODE, RAX, RBX, RCX, RDX, Board

IOPL_3 = 3 << 12


def until_ud(board: Board) -> None:
    """Go on behind every exit, until #UD."""

    def go_on(kind: str, number: int, error_code: int) -> None:
        if (kind, number) == ("exception", 6):
            board.cpu.request_stop()

    board.handler = go_on


def test_syscall_is_seen_from_behind(board64: Board) -> None:
    until_ud(board64)
    board64.run("90 0f05 ffc0 0f0b", 1)  # nop; syscall; inc eax; ud2
    assert board64.seen == [
        ("syscall", 0, 0, CODE + 3, 0),
        ("exception", 6, 0, CODE + 5, 0),
    ]
    assert board64.gpr(RAX) == 1


def test_syscall_goes_where_its_handler_says(board64: Board) -> None:
    def handler(kind: str, number: int, error_code: int) -> None:
        if kind == "syscall":
            board64.cpu.state.rip = CODE + 0x100
            board64.cpu.state.set_cpl(1)
        else:
            board64.cpu.request_stop()

    board64.handler = handler
    board64.load("0f0b", CODE + 0x100)
    board64.run("0f05 f4")
    assert board64.seen[-1] == ("exception", 6, 0, CODE + 0x100, 0)
    assert board64.cpu.state.cpl == 1


def test_syscalls_in_a_row_each_arrive_once(board64: Board) -> None:
    """The engine drops one when another hook stands before its own and a stop is pending."""
    until_ud(board64)
    for _ in range(50):
        board64.seen.clear()
        board64.run("0f05" * 4 + "0f0b")
        assert [exit_[0] for exit_ in board64.seen] == ["syscall"] * 4 + ["exception"]


def test_syscall_that_stops_is_not_repeated(board64: Board) -> None:
    board64.run("0f05 0f05 0f0b")
    board64.run()
    assert [exit_[3] for exit_ in board64.seen] == [CODE + 2, CODE + 4]


def test_sysenter_is_seen_from_behind(board: Board) -> None:
    until_ud(board)
    board.run("90 0f34 90 0f0b", 1)
    assert board.seen[0] == ("sysenter", 0, 0, CODE + 3, 0)


def test_cpuid_is_answered_by_the_owner(board: Board) -> None:
    until_ud(board)
    board.run("b841000000 0fa2 0f0b")  # mov eax, 0x41; cpuid; ud2
    assert board.seen[0][:2] == ("cpuid", 0x41)
    assert [board.gpr(n) for n in (RAX, RBX, RCX, RDX)] == [0x42, 0xB, 0xC, 0xD]
    assert board.seen[1][3] == CODE + 7


@pytest.mark.parametrize("code", ["0f31", "0f01f9"], ids=["rdtsc", "rdtscp"])
def test_time_stamp_counter_is_the_owners(board: Board, code: str) -> None:
    until_ud(board)
    board.run(f"{code} 0f0b")
    assert board.seen[0][0] == "rdtsc"
    assert board.gpr(RDX) << 32 | board.gpr(RAX) == board.tsc


@pytest.mark.parametrize(
    "code",
    ["e460", "e560", "66e560", "ec", "ed", "66ed", "e660", "e760", "ee", "ef", "6c", "6e", "f36c"],
)
def test_port_access_without_the_right_is_a_gp_at_the_instruction(board: Board, code: str) -> None:
    """Not at the start of its block, where the engine reports it."""
    board.run(f"90 ffc1 90 {code} 0f0b")
    assert board.seen == [("exception", 13, 0, CODE + 4, 0)]
    assert board.gpr(RCX) == 1


def test_a_port_that_the_owner_allows_is_done_in_place(board: Board) -> None:
    until_ud(board)
    board.allowed_ports = {0xEC, 0xEE}
    board.run("66ba3412 90 ec 90 ee 0f0b")
    assert board.seen == [
        ("allowed", 0xEC, 0, CODE + 5, 0),
        ("in", 0x1234, 1, CODE + 5, 0),
        ("allowed", 0xEE, 0, CODE + 7, 0),
        ("out", 0x1234, 0x34, CODE + 7, 0),
        ("exception", 6, 0, CODE + 8, 0),
    ]
    assert board.gpr(RAX) & 0xFF == 0x34
    per_byte = board.cpu.clock.ps_per_byte
    assert [ps // per_byte for ps in board.times] == [5, 5, 7, 7, 8]


def test_port_access_with_the_right_reaches_the_owner(board: Board) -> None:
    until_ud(board)
    board.load("66ba3412 b8efbeadde ee 31c0 ec 0f0b")
    board.start(CODE, 1)  # mov dx, 0x1234; mov eax, 0xdeadbeef; out dx, al; xor eax, eax; in al, dx
    board.cpu.state.rflags |= IOPL_3
    board.run()
    assert [exit_[:3] for exit_ in board.seen] == [
        ("out", 0x1234, 0xEF),
        ("in", 0x1234, 1),
        ("exception", 6, 0),
    ]
    assert board.gpr(RAX) == 0x34


def test_same_port_instruction_with_and_without_the_right(board: Board) -> None:
    board.load("e460 0f0b")
    for iopl, expected in ((IOPL_3, "in"), (0, "exception"), (IOPL_3, "in"), (0, "exception")):
        board.seen.clear()
        board.start(CODE, 1)
        board.cpu.state.rflags |= iopl
        board.run()
        assert board.seen[0][0] == expected


def test_port_bytes_inside_another_instruction_are_no_port_access(board: Board) -> None:
    board.run("b8ecedeeef 0f0b")  # mov eax, 0xefeeedec; ud2
    assert [exit_[1] for exit_ in board.seen] == [6]
    assert board.gpr(RAX) == 0xEFEE_EDEC


def test_invalid_code_that_is_made_valid(board: Board) -> None:
    def patch(kind: str, number: int, error_code: int) -> None:
        if len(board.seen) == 1:
            board.load("9090", CODE + 2)
        else:
            board.cpu.request_stop()

    board.handler = patch
    assert board.run("ffc1 0f0b ffc1 0f0b") is Stop.REQUESTED
    assert [exit_[3] for exit_ in board.seen] == [CODE + 2, CODE + 6]
    assert board.gpr(RCX) == 2


def test_far_return_to_a_lower_ring_is_done_by_the_engine(board: Board) -> None:
    """With a GDT in memory, iret from ring 1 to 3 needs nobody's help."""
    word = 8 if board.mode == "long" else 4
    gdt, stack = 0x8000, 0xB000
    descriptors = [0, 0x00AFFB00_0000FFFF, 0x00CFF300_0000FFFF, 0x00CFFB00_0000FFFF]
    code = 1 if board.mode == "long" else 3
    board.memory.write(gdt, b"".join(d.to_bytes(8, "little") for d in descriptors))
    frame = [CODE + 0x40, code << 3 | 3, 0x202, stack + 0x800, 2 << 3 | 3]
    board.memory.write(stack, b"".join(value.to_bytes(word, "little") for value in frame))
    board.load("48cf" if board.mode == "long" else "cf")
    board.load("8cc8 0f0b", CODE + 0x40)
    board.start(CODE, 1)
    board.cpu.state.gdt = (gdt, 8 * len(descriptors) - 1)
    board.cpu.state.set_gpr(4, stack)
    board.run()
    assert board.seen == [("exception", 6, 0, CODE + 0x42, 0)]
    assert board.gpr(RAX) == code << 3 | 3
    assert board.cpu.state.segment(CS).selector == code << 3 | 3
    assert board.gpr(4) == stack + 0x800


def test_loop_that_polls_a_port_is_translated_once(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks overlap: the loop's, and what is left of it behind the access."""
    translated: list[int] = []
    note = CodeWatch._note

    def counted(watch: CodeWatch, start: int, size: int) -> None:
        translated.append(start)
        note(watch, start, size)

    monkeypatch.setattr(CodeWatch, "_note", counted)

    def skip(kind: str, number: int, error_code: int) -> None:
        if number == 13:
            board.cpu.state.rip += 2
        else:
            board.cpu.request_stop()

    board.handler = skip
    board.load("e461 e462 ffc9 75f8 0f0b")  # in al, 0x61; in al, 0x62; dec ecx; jnz
    board.start(CODE, 1)
    board.cpu.state.set_gpr(RCX, 100)
    board.run()
    assert [exit_[1] for exit_ in board.seen] == [13] * 200 + [6]
    assert len(translated) < 30


def test_port_instructions_without_number_stay_exact_and_bounded(board: Board) -> None:
    """Each is at an address of its own: what the machine keeps of them has an end."""
    count = 1000
    until_ud(board)
    board.load("ec eb00" * count + "0f0b")  # in al, dx; jmp to the next
    board.start(CODE, 1)
    board.cpu.state.rflags |= IOPL_3
    board.run()
    assert [exit_[0] for exit_ in board.seen] == ["in"] * count + ["exception"]
    assert len(board.cpu._core.engine.hooks) < 300
