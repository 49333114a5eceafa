"""The three guest ABIs (the `xen-3.0-*` capability strings of public/version.h)."""

from __future__ import annotations

from enum import Enum


class Width(Enum):
    """Which ABI a guest speaks."""

    X86_32 = "x86_32"  # two-level page tables, the 2003 paper's
    X86_32P = "x86_32p"  # PAE
    X86_64 = "x86_64"

    def __init__(self, value: str) -> None:
        # attributes, not properties: the hottest path asks for them
        self.is_64 = value == "x86_64"
        self.bits = 64 if self.is_64 else 32  # of the guest's `unsigned long`
        self.word_bytes = self.bits // 8
        self.magic = f"xen-3.0-{value}"  # start_info.magic
