"""What stands in memory after a build: read back through the page tables it made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.abi.layout import layout as layout_of
from hypervisor.abi.width import Width
from hypervisor.abi.xen import StartInfo
from hypervisor.domain.builder import BuildError, BuildParams, Layout, StartOfDay, build, plan
from hypervisor.domain.hypercall_page import hypercall_page
from hypervisor.domain.image import GuestImage, load_image
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.frames import FrameTable, FrameType
from hypervisor.mm.hole_map import HOLE
from hypervisor.mm.pagetables import PageTables, XenSlots
from tests.support.elf_writer import (
    KernelSpec,
    LoadSegment,
    Symbol,
    generic_notes,
    text,
    write_elf,
)
from tests.support.images import WIDTHS, small_image
from tests.support.table_walker import Leaf, walk_everything

NR_FRAMES = 2048  # 8 MiB
LEVELS = {Width.X86_32: 2, Width.X86_32P: 3, Width.X86_64: 4}
P_RW_A = 0x23
P_A = 0x21
P_RW_U_A_D = 0x67


@dataclass(frozen=True)
class Built:
    """A built domain, seen from inside."""

    memory: MachineMemory
    image: GuestImage
    layout: Layout
    p2m: list[int]
    start: StartOfDay
    pages: dict[int, Leaf]

    def read(self, vaddr: int, size: int) -> bytes:
        """Guest-virtual memory."""
        found = b""
        while len(found) < size:
            at = vaddr + len(found)
            maddr = (self.pages[at & ~0xFFF].mfn << 12) + (at & 0xFFF)
            found += self.memory.read(maddr, min(size - len(found), 0x1000 - (at & 0xFFF)))
        return found

    @property
    def info(self) -> StartInfo:
        """The start_info page, decoded."""
        page = self.memory.frame(self.start.start_info_mfn)
        info: StartInfo = layout_of(StartInfo, self.image.width).unpack_from(page)
        return info


def scattered(nr_frames: int, of: int) -> list[int]:
    """Frames 1 to `of` - 1, neighbours far apart."""
    return [mfn for i in range(of) if (mfn := i * 1237 % of)][:nr_frames]


def make(
    image: GuestImage,
    *,
    nr_frames: int = NR_FRAMES,
    params: BuildParams | None = None,
    ramdisk: bytes | None = None,
    initial_domain: bool = False,
    cmdline: str = "",
) -> Built:
    memory = MachineMemory((nr_frames + 512) << 12)
    p2m = scattered(nr_frames, nr_frames + 512)
    layout = plan(image, nr_frames, cmdline, ramdisk, initial_domain=initial_domain)
    start = build(memory, image, p2m, layout, params or BuildParams(0x5000))
    pages = walk_everything(memory, LEVELS[image.width], start.root_mfn)
    return Built(memory, image, layout, p2m, start, pages)


@pytest.fixture(params=WIDTHS, ids=lambda w: w.name)
def width(request: pytest.FixtureRequest) -> Width:
    value: Width = request.param
    return value


# --- page tables -----------------------------------------------------------------------------


def test_initial_mapping_shows_the_frames_in_order(width: Width) -> None:
    built = make(small_image(width, virt_base=0x400000))
    nr_mapped = built.layout.virt_end - 0x400000 >> 12
    assert {vaddr: leaf.mfn for vaddr, leaf in built.pages.items()} == {
        0x400000 + (pfn << 12): built.p2m[pfn] for pfn in range(nr_mapped)
    }


def test_every_page_is_writable_but_the_tables(width: Width) -> None:
    built = make(small_image(width))
    tables = {table.mfn for table in built.start.page_tables}
    for leaf in built.pages.values():
        assert leaf.flags == (P_A if leaf.mfn in tables else P_RW_A)
        assert all(entry & 0xFFF == P_RW_U_A_D for entry in leaf.path)


def test_frames_walked_through_are_the_ones_reported(width: Width) -> None:
    built = make(small_image(width))
    walked = {
        (mfn, LEVELS[width] - depth)
        for leaf in built.pages.values()
        for depth, mfn in enumerate(leaf.tables)
    }
    reported = {(table.mfn, table.level) for table in built.start.page_tables}
    assert walked <= reported
    assert built.start.page_tables[0].mfn == built.start.root_mfn
    # all that PAE adds are empty L2 tables
    unused = {level for _, level in reported - walked}
    assert unused == ({2} if width is Width.X86_32P else set())


def test_pae_has_an_l2_table_for_each_gib() -> None:
    built = make(small_image(Width.X86_32P))
    root = built.memory.read(built.start.root_mfn << 12, 40)
    entries = [int.from_bytes(root[i : i + 8], "little") for i in range(0, 40, 8)]
    l2_tables = {t.mfn for t in built.start.page_tables if t.level == 2}
    assert {entry >> 12 for entry in entries[:4]} == l2_tables
    assert entries[4] == 0


def test_root_can_be_read_at_pt_base(width: Width) -> None:
    built = make(small_image(width, virt_base=0x400000))
    assert built.pages[built.start.pt_base].mfn == built.start.root_mfn
    assert built.info.pt_base == built.start.pt_base
    assert built.info.nr_pt_frames == len(built.start.page_tables)


def test_kernel_in_the_upper_half_is_mapped_there() -> None:
    base = 0xFFFFFFFF80000000
    built = make(small_image(Width.X86_64, virt_base=base))
    assert min(built.pages) == base
    assert max(built.pages) == built.layout.virt_end - 4096


def test_old_contents_of_a_table_frame_do_not_survive(width: Width) -> None:
    image = small_image(width)
    memory = MachineMemory((NR_FRAMES + 512) << 12)
    p2m = scattered(NR_FRAMES, NR_FRAMES + 512)
    layout = plan(image, NR_FRAMES)
    for table in layout.tables:
        memory.frame(p2m[table.pfn])[:] = b"\xff" * 4096
    start = build(memory, image, p2m, layout, BuildParams(0x5000))
    pages = walk_everything(memory, LEVELS[width], start.root_mfn)
    assert len(pages) == layout.virt_end >> 12


# --- contents --------------------------------------------------------------------------------


def test_segments_stand_at_their_addresses_with_zeroes_behind(width: Width) -> None:
    segments = [LoadSegment(0x1ABC, b"text" * 2000, memsz=0x3000), LoadSegment(0x4ABC, b"data")]
    notes = generic_notes(pae="no" if width is Width.X86_32 else "yes", ENTRY=0x1ABC)
    data = write_elf(KernelSpec(bits=width.bits, segments=segments, notes=notes))
    built = make(load_image(data))
    assert built.read(0x1000, 0xABC) == bytes(0xABC)
    assert built.read(0x1ABC, 8000) == b"text" * 2000
    assert built.read(0x1ABC + 8000, 0x3000 - 8000) == bytes(0x3000 - 8000)
    assert built.read(0x4ABC, 4) == b"data"


def test_hypercall_page_is_written_over_the_image(width: Width) -> None:
    built = make(small_image(width, HYPERCALL_PAGE=0x2000))
    assert built.read(0x2000, 4096) == hypercall_page(width)


def test_bsd_symbol_table_stands_behind_the_image() -> None:
    notes = [*generic_notes(pae="yes"), (11, text("yes"))]
    image = load_image(write_elf(KernelSpec(notes=notes, symbols=[Symbol("main", 0x10)])))
    built = make(image)
    assert image.bsd_symtab is not None
    assert built.read(image.bsd_symtab_vaddr, len(image.bsd_symtab)) == image.bsd_symtab


def test_list_names_all_frames(width: Width) -> None:
    built = make(small_image(width))
    size = width.word_bytes
    raw = built.read(built.info.mfn_list, NR_FRAMES * size)
    found = [int.from_bytes(raw[i : i + size], "little") for i in range(0, len(raw), size)]
    assert found == built.p2m


def test_ramdisk_is_mapped(width: Width) -> None:
    ramdisk = bytes(range(256)) * 33
    built = make(small_image(width), ramdisk=ramdisk)
    assert built.info.mod_len == len(ramdisk)
    assert built.info.flags & 8 == 0
    assert built.read(built.info.mod_start, len(ramdisk)) == ramdisk


def test_unmapped_ramdisk_is_named_by_its_pfn() -> None:
    ramdisk = bytes(range(256)) * 33
    built = make(small_image(Width.X86_64, MOD_START_PFN=1), ramdisk=ramdisk)
    pfn = built.info.mod_start
    raw = b"".join(built.memory.read(built.p2m[pfn + i] << 12, 4096) for i in range(3))
    assert built.info.flags & 8
    assert raw[: len(ramdisk)] == ramdisk
    assert not {leaf.mfn for leaf in built.pages.values()} & set(built.p2m[pfn : pfn + 3])


def test_init_p2m_is_mapped_where_it_was_wanted() -> None:
    image = small_image(Width.X86_64, virt_base=0xFFFFFFFF80000000, INIT_P2M=0x8000000000)
    built = make(image)
    info = built.info
    raw = built.read(0x8000000000, NR_FRAMES * 8)
    assert info.mfn_list == 0x8000000000
    assert [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)] == built.p2m
    assert (info.first_p2m_pfn, info.nr_p2m_frames) == (built.layout.p2m.pfn, 4 + 3)
    # frames of these tables are mapped nowhere
    mapped = {leaf.mfn for leaf in built.pages.values()}
    assert not mapped & {t.mfn for t in built.start.page_tables[info.nr_pt_frames :]}


def test_without_init_p2m_there_is_no_range_of_the_list(width: Width) -> None:
    info = make(small_image(width)).info
    assert (info.first_p2m_pfn, info.nr_p2m_frames) == (0, 0)


# --- start_info and registers ----------------------------------------------------------------


def test_start_info_tells_of_the_domain(width: Width) -> None:
    params = BuildParams(shared_info_maddr=0x5000, store_port=1, console_port=2, flags=16)
    built = make(small_image(width), params=params, cmdline="root=/dev/xvda quiet")
    info = built.info
    assert info.magic.split(b"\0")[0] == f"xen-3.0-{width.value}".encode()
    assert (info.nr_pages, info.shared_info, info.flags) == (NR_FRAMES, 0x5000, 16)
    assert (info.store_mfn, info.store_evtchn) == (built.start.store_mfn, 1)
    assert info.cmd_line.split(b"\0")[0] == b"root=/dev/xvda quiet"
    assert built.layout.console is not None
    assert built.start.console_mfn == built.p2m[built.layout.console.pfn]


def test_dom0_is_told_so_and_has_no_rings(width: Width) -> None:
    built = make(small_image(width), initial_domain=True)
    assert built.info.flags == 3
    assert (built.start.store_mfn, built.start.console_mfn, built.info.store_mfn) == (0, 0, 0)


def test_rings_are_zeroed_pages(width: Width) -> None:
    built = make(small_image(width))
    for mfn in (built.start.store_mfn, built.start.console_mfn):
        assert built.memory.read(mfn << 12, 4096) == bytes(4096)


def test_first_vcpu_starts_at_the_entry_on_the_boot_stack(width: Width) -> None:
    built = make(small_image(width, virt_base=0x400000))
    start = built.start
    assert start.entry == 0x401000
    assert start.start_info == 0x400000 + (built.layout.start_info.pfn << 12)
    assert start.stack_top == 0x400000 + (built.layout.boot_stack.end_pfn << 12)
    assert built.pages[start.stack_top - 4096].flags & 2


def test_only_frames_of_the_domain_are_touched(width: Width) -> None:
    image = small_image(width)
    memory = MachineMemory((NR_FRAMES + 512) << 12)
    memory.view[:] = b"\xee" * memory.size_bytes
    p2m = scattered(NR_FRAMES, NR_FRAMES + 512)
    for mfn in p2m:
        memory.frame(mfn)[:] = bytes(4096)
    build(memory, image, p2m, plan(image, NR_FRAMES), BuildParams(0x5000))
    others = set(range(memory.nr_frames)) - set(p2m)
    assert all(memory.frame(mfn) == b"\xee" * 4096 for mfn in others)


def test_memory_management_accepts_the_tables_from_the_root_on(width: Width) -> None:
    image = small_image(width, virt_base=0x400000)
    memory = MachineMemory((NR_FRAMES + 512) << 12)
    frames = FrameTable(memory)
    p2m = frames.allocate(1, NR_FRAMES)
    start = build(memory, image, p2m, plan(image, NR_FRAMES), BuildParams(0x5000))
    hole = HOLE[width]
    nr_slots = hole.end_slot - hole.first_slot
    empty = bytes(nr_slots * (4 if width is Width.X86_32 else 8))
    slots = XenSlots(hole.table, hole.first_slot, hole.end_slot, empty)
    tables = PageTables(frames, width, 1, slots)
    tables.pin(start.root_mfn, tables.root_type)
    table_types = {FrameType.L1: 1, FrameType.L2: 2, FrameType.XEN_L2: 2, FrameType.L3: 3}
    found = {
        (mfn, table_types.get(FrameType(frames.type[mfn]), 4))
        for mfn in p2m
        if frames.type_count[mfn] and frames.type[mfn] != FrameType.WRITABLE
    }
    assert found == {(table.mfn, table.level) for table in start.page_tables}


# --- refusals --------------------------------------------------------------------------------


def test_frame_above_4_gib_is_refused_for_two_level_tables() -> None:
    image = small_image(Width.X86_32)
    p2m = [*range(1, NR_FRAMES), 0x100000]
    with pytest.raises(
        BuildError,
        match=r"^mfn 0x100000 lies above 4 GiB, out of reach of x86_32 page tables$",
    ):
        build(MachineMemory(4096), image, p2m, plan(image, NR_FRAMES), BuildParams(0x5000))


def test_high_top_level_table_is_refused_without_extended_cr3() -> None:
    section = "LOADER=generic,XEN_VER=xen-3.0,PAE=yes"
    image = load_image(write_elf(KernelSpec(xen_guest=section)))
    layout = plan(image, NR_FRAMES)
    p2m = list(range(1, NR_FRAMES + 1))
    p2m[layout.page_tables.pfn] = 0x123456
    with pytest.raises(
        BuildError,
        match=r"^mfn 0x123456 lies above 4 GiB, the kernel \(PAE=yes without extended-cr3\) "
        r"needs its top-level page table below$",
    ):
        build(MachineMemory(4096), image, p2m, layout, BuildParams(0x5000))


# --- any image -------------------------------------------------------------------------------


@given(
    width=st.sampled_from(WIDTHS),
    base=st.integers(0, 0x3FF).map(lambda i: i << 20),
    start=st.integers(0, 0x300000),
    size=st.integers(1, 0x300000),
    ramdisk=st.binary(max_size=3) | st.just(b"r" * 9000),
)
@settings(max_examples=25, deadline=None)
def test_image_and_ramdisk_can_be_read_back(
    width: Width, base: int, start: int, size: int, ramdisk: bytes
) -> None:
    image = small_image(width, virt_base=base, start=start, size_bytes=size)
    built = make(image, nr_frames=4096, ramdisk=ramdisk)
    for segment in image.segments:
        want = bytes(segment.data).ljust(min(segment.memsz, 0x4000), b"\0")
        assert built.read(segment.vaddr, len(want)) == want
    if ramdisk:
        assert built.read(built.info.mod_start, len(ramdisk)) == ramdisk
    assert set(built.pages) == set(range(base, built.layout.virt_end, 4096))
    assert len({leaf.mfn for leaf in built.pages.values()}) == len(built.pages)


def test_layout_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan(small_image(Width.X86_32), NR_FRAMES).virt_end = 0  # type: ignore[misc]
