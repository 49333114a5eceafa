"""Disassembly for people: widths, ends of listings, and bytes that are no instruction."""

from __future__ import annotations

import pytest

from hypervisor.debug.disassembly import Line, disassemble


@pytest.mark.parametrize(
    ("bits", "text"), [(64, "syscall"), (32, "syscall")], ids=["X86_64", "X86_32"]
)
def test_instruction_becomes_one_line(bits: int, text: str) -> None:
    assert disassemble(b"\x0f\x05", 0x1000, bits, 4) == [Line(0x1000, b"\x0f\x05", text)]


def test_width_changes_the_meaning() -> None:
    code = b"\x48\xff\xc0"
    assert [line.text for line in disassemble(code, 0, 64, 4)] == ["inc rax"]
    assert [line.text for line in disassemble(code, 0, 32, 4)] == ["dec eax", "inc eax"]


def test_hypercall_page_slot_is_readable() -> None:
    slot = bytes.fromhex("b811000000cd82c3")
    lines = disassemble(slot, 0xC0002220, 32, 8)
    assert [line.text for line in lines] == ["mov eax, 0x11", "int 0x82", "ret"]
    assert [line.vaddr for line in lines] == [0xC0002220, 0xC0002225, 0xC0002227]


def test_no_more_lines_than_asked() -> None:
    assert len(disassemble(b"\x90" * 10, 0, 32, 3)) == 3


def test_byte_that_starts_no_instruction_is_data() -> None:
    lines = disassemble(b"\xff\xff\x90", 0, 32, 8)
    assert [line.text for line in lines] == [".byte 0xff", ".byte 0xff", "nop"]
