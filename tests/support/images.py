"""Small kernels for tests of everything behind the loader."""

from __future__ import annotations

from hypervisor.abi.width import Width
from hypervisor.domain.image import GuestImage, load_image
from tests.support.elf_writer import KernelSpec, LoadSegment, generic_notes, write_elf

WIDTHS = tuple(Width)
PAE = {Width.X86_32: "no", Width.X86_32P: "yes", Width.X86_64: None}


def small_image(
    width: Width,
    *,
    virt_base: int = 0,
    size_bytes: int = 0x2800,
    start: int = 0x1000,
    pae: str | None = None,
    **numbers: int,
) -> GuestImage:
    """A kernel of `size_bytes` at `virt_base + start`; `numbers` are further notes by name."""
    content = bytes(i % 251 for i in range(min(size_bytes, 0x2800)))
    spec = KernelSpec(
        bits=width.bits,
        segments=[LoadSegment(start, content, memsz=size_bytes)],
        notes=generic_notes(
            pae or PAE[width], VIRT_BASE=virt_base, ENTRY=virt_base + start, **numbers
        ),
    )
    return load_image(write_elf(spec), width=width)
