"""Debian's PV-GRUBs through the loader and the builder: files that nobody here wrote."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from hypervisor.abi.width import Width
from hypervisor.domain.builder import BuildParams, build, plan
from hypervisor.domain.image import GuestImage, ImageError, load_image
from hypervisor.domain.parms import PaeMode
from hypervisor.machine.memory import MachineMemory
from hypervisor.testing.debian import GRUB_PACKAGE, GRUB_PVH
from tests.real.conftest import debian_or_skip
from tests.support.table_walker import walk_everything

pytestmark = pytest.mark.real

NR_FRAMES = 64 << 8  # 64 MiB


def summary(image: GuestImage) -> dict[str, object]:
    return {
        "width": image.width,
        "entry": image.entry,
        "virt_base": image.virt_base,
        "hypercall_page": image.hypercall_page,
        "guest_os": image.guest_os,
        "loader": image.loader,
        "pae": image.pae,
    }


def test_32_bit_grub_says_what_it_is(grub_32: Path) -> None:
    # its last note, PAE_MODE, claims 12 bytes where its segment has 4 left
    assert summary(load_image(grub_32.read_bytes())) == {
        "width": Width.X86_32P,
        "entry": 0,
        "virt_base": 0,
        "hypercall_page": None,
        "guest_os": "GRUB",
        "loader": "generic",
        "pae": PaeMode.EXTENDED,
    }


def test_64_bit_grub_says_what_it_is(grub_64: Path) -> None:
    assert summary(load_image(grub_64.read_bytes())) == {
        "width": Width.X86_64,
        "entry": 0,
        "virt_base": 0,
        "hypercall_page": None,
        "guest_os": "GRUB",
        "loader": "generic",
        "pae": PaeMode.NO,
    }


def test_pvh_grub_is_refused() -> None:
    data = debian_or_skip(GRUB_PACKAGE, GRUB_PVH).read_bytes()
    with pytest.raises(ImageError, match=r"^the kernel only has a PVH entry"):
        load_image(data)


@pytest.mark.parametrize("grub", ["grub_32", "grub_64"])
def test_segments_are_in_memory_byte_for_byte(grub: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(grub).read_bytes()
    image = load_image(data)
    memory = MachineMemory(NR_FRAMES + 512 << 12)
    p2m = [1 + i * 5003 % NR_FRAMES for i in range(NR_FRAMES)]
    layout = plan(image, NR_FRAMES)
    start = build(memory, image, p2m, layout, BuildParams(shared_info_maddr=0))
    pages = walk_everything(memory, layout.mode.levels, start.root_mfn)
    mapped = b"".join(memory.read(pages[vaddr].mfn << 12, 4096) for vaddr in sorted(pages))
    for segment in ELFFile(io.BytesIO(data)).iter_segments("PT_LOAD"):
        content = segment.data().ljust(segment.header.p_memsz, b"\0")
        assert mapped[segment.header.p_paddr :][: len(content)] == content
