"""Translations of addresses and of code: what is changed is seen, when it is to be."""

from __future__ import annotations

import pytest

from hypervisor.machine.memory import MachineMemory
from tests.support.board import CODE, DATA, RAX, Board

LOAD_DATA = {"long": "a1 00a0000000000000 0f0b", "pae": "a1 00a00000 0f0b"}
LOAD_DATA["legacy32"] = LOAD_DATA["pae"]
OTHER = 0x10_0000


def value_at_data(board: Board) -> int:
    """What the guest reads at DATA."""
    board.cpu.state.rip = CODE
    board.run()
    return board.gpr(RAX)


@pytest.fixture
def loader(board: Board) -> Board:
    """A board whose code reads DATA, where 1 stands; 2 stands in another frame."""
    board.memory.u32[DATA >> 2] = 1
    board.memory.u32[OTHER >> 2] = 2
    board.load(LOAD_DATA[board.mode])
    board.start(CODE)
    assert value_at_data(board) == 1
    return board


def test_flush_of_a_page_shows_its_new_frame(loader: Board) -> None:
    loader.map_page(DATA, OTHER)
    assert value_at_data(loader) == 2
    assert loader.cpu.stats.tlb_page_flushes == 1


def test_flush_of_all_shows_the_new_frame(loader: Board) -> None:
    flushes = loader.cpu.stats.tlb_flushes
    loader.cpu.flush_tlb_page = lambda vaddr: None  # type: ignore[method-assign]
    loader.map_page(DATA, OTHER)
    loader.cpu.flush_tlb()
    assert value_at_data(loader) == 2
    assert loader.cpu.stats.tlb_flushes == flushes + 1


def test_flush_of_user_translations_shows_the_new_frame(loader: Board) -> None:
    loader.cpu.flush_tlb_page = lambda vaddr: None  # type: ignore[method-assign]
    loader.map_page(DATA, OTHER)
    loader.cpu.flush_tlb_user()
    assert value_at_data(loader) == 2


def test_translation_stays_until_it_is_flushed(loader: Board) -> None:
    """Or these tests would pass without any flush."""
    loader.cpu.flush_tlb_page = lambda vaddr: None  # type: ignore[method-assign]
    loader.map_page(DATA, OTHER)
    assert value_at_data(loader) == 1


def test_flush_within_an_exit_holds_at_once(loader: Board) -> None:
    def handler(kind: str, number: int, error_code: int) -> None:
        if len(loader.seen) == 2:
            loader.map_page(DATA, OTHER)
            loader.cpu.state.rip = CODE
        else:
            loader.cpu.request_stop()

    loader.handler = handler
    loader.cpu.state.rip = CODE
    loader.run()
    assert loader.gpr(RAX) == 2


def test_code_written_by_the_owner_is_run(board: Board) -> None:
    for value in range(5):
        board.load(f"b8{value:02x}000000 0f0b")
        board.start(CODE)
        board.run()
        assert board.gpr(RAX) == value


def test_code_written_in_an_exit_is_run(board: Board) -> None:
    """The very block that is being executed changes."""

    def handler(kind: str, number: int, error_code: int) -> None:
        if kind == "int":
            board.load("b809000000", CODE + 2)
        else:
            board.cpu.request_stop()

    board.handler = handler
    board.run("cd20 b801000000 0f0b")
    assert board.gpr(RAX) == 9


def test_code_written_by_the_guest_is_run(board: Board) -> None:
    # mov eax, CODE + 10; mov byte [rax + 1], 7; nop; mov eax, 1; ud2
    board.run("b80a100000 c6400107 90 b801000000 0f0b")
    assert board.gpr(RAX) == 7


def test_same_frame_at_another_address_is_the_same_code(board: Board) -> None:
    board.map_page(DATA, CODE)
    board.load("b801000000 0f0b")
    board.start(DATA)
    board.run()
    board.load("b802000000 0f0b")
    board.start(DATA)
    board.run()
    assert board.gpr(RAX) == 2


def test_frames_that_hold_code_are_known(board: Board) -> None:
    board.run("eb00 0f0b")
    assert board.cpu.code_frames[CODE >> 12]
    assert not board.cpu.code_frames[DATA >> 12]


def test_memory_must_be_whole_pages() -> None:
    for size in (0, -4096, 4097):
        with pytest.raises(ValueError, match=f"^memory of {size} bytes: a multiple of 4096"):
            MachineMemory(size)


def test_memory_is_the_same_by_every_view() -> None:
    memory = MachineMemory(8192)
    memory.write(4096, bytes(range(8)))
    assert memory.u64[512] == 0x0706_0504_0302_0100
    assert memory.u32[1025] == 0x0706_0504
    assert memory.u16[2049] == 0x0302
    assert bytes(memory.frame(1)[:4]) == memory.read(4096, 4) == bytes(range(4))
