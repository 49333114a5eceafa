"""The hypercall page, disassembled."""

from __future__ import annotations

import capstone
import pytest

from hypervisor.abi.width import Width
from hypervisor.domain.hypercall_page import hypercall_page


def entry(width: Width, nr: int) -> str:
    mode = capstone.CS_MODE_64 if width.is_64 else capstone.CS_MODE_32
    engine = capstone.Cs(capstone.CS_ARCH_X86, mode)
    code = hypercall_page(width)[nr * 32 : nr * 32 + 32]
    lines = [f"{i.mnemonic} {i.op_str}".strip() for i in engine.disasm(code, 0)]
    return "; ".join(line for line in lines if line != "int3")


@pytest.mark.parametrize("width", [Width.X86_32, Width.X86_32P], ids=lambda w: w.name)
def test_32_bit_entries_use_the_gate(width: Width) -> None:
    assert entry(width, 17) == "mov eax, 0x11; int 0x82; ret"
    assert entry(width, 23) == "push eax; mov eax, 0x17; int 0x82"


def test_64_bit_entries_save_what_syscall_overwrites() -> None:
    assert entry(Width.X86_64, 17) == (
        "push rcx; push r11; mov eax, 0x11; syscall; pop r11; pop rcx; ret"
    )
    assert entry(Width.X86_64, 23) == "push rcx; push r11; push rax; mov eax, 0x17; syscall"


@pytest.mark.parametrize("width", list(Width), ids=lambda w: w.name)
def test_it_fills_a_page(width: Width) -> None:
    assert len(hypercall_page(width)) == 4096
