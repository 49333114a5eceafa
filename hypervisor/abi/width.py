"""The three guest ABIs (the `xen-3.0-*` capability strings of public/version.h)."""

from __future__ import annotations

from enum import Enum


class Width(Enum):
    """Which ABI a guest speaks."""

    X86_32 = "x86_32"  # two-level page tables, the 2003 paper's
    X86_32P = "x86_32p"  # PAE
    X86_64 = "x86_64"

    @property
    def is_64(self) -> bool:
        """Whether the guest's words have 64 bits."""
        return self is Width.X86_64

    @property
    def bits(self) -> int:
        """The size of the guest's `unsigned long` in bits."""
        return 64 if self is Width.X86_64 else 32

    @property
    def word_bytes(self) -> int:
        """The size of the guest's `unsigned long` in bytes."""
        return 8 if self is Width.X86_64 else 4

    @property
    def magic(self) -> str:
        """start_info.magic."""
        return f"xen-3.0-{self.value}"
