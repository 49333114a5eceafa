"""The plan of a start of day: order, sizes, and what does not fit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.abi.width import Width
from hypervisor.domain.layout import BuildError, Layout, Region, plan
from tests.support.images import WIDTHS, small_image

MIB = 256  # frames

BASES = {
    Width.X86_32: 0xC0000000,
    Width.X86_32P: 0xC0000000,
    Width.X86_64: 0xFFFFFFFF80000000,
}


def regions(layout: Layout) -> list[Region]:
    """Those of the initial mapping, as they lie."""
    all_regions = [
        layout.kernel,
        layout.ramdisk,
        layout.p2m,
        layout.start_info,
        layout.xenstore,
        layout.console,
        layout.page_tables,
        layout.boot_stack,
    ]
    return [region for region in all_regions if region is not None]


@pytest.fixture(params=WIDTHS, ids=lambda w: w.name)
def width(request: pytest.FixtureRequest) -> Width:
    value: Width = request.param
    return value


def test_elements_follow_each_other_in_xens_order(width: Width) -> None:
    layout = plan(small_image(width), 16 * MIB, ramdisk=b"r" * 5000)
    names = [region.name for region in regions(layout)]
    assert names == [
        "kernel",
        "ramdisk",
        "p2m",
        "start_info",
        "xenstore",
        "console",
        "page tables",
        "boot stack",
    ]
    for before, after in zip(regions(layout), regions(layout)[1:], strict=False):
        assert before.end_pfn == after.pfn


def test_dom0_has_no_rings(width: Width) -> None:
    layout = plan(small_image(width), 16 * MIB, initial_domain=True)
    assert (layout.xenstore, layout.console) == (None, None)
    assert layout.page_tables.pfn == layout.start_info.end_pfn


def test_kernel_stands_at_its_distance_from_the_base(width: Width) -> None:
    image = small_image(width, virt_base=BASES[width], start=0x100800)
    layout = plan(image, 16 * MIB)
    assert layout.kernel.pfn == 0x100
    assert layout.kernel.vaddr == BASES[width] + 0x100000
    assert layout.kernel.nr_frames == 3


def test_list_has_a_word_for_each_frame(width: Width) -> None:
    layout = plan(small_image(width), 16 * MIB + 1)
    words_a_page = 4096 // width.word_bytes
    assert layout.p2m.nr_frames == -(-(16 * MIB + 1) // words_a_page)


@pytest.mark.parametrize(
    ("width", "tables"),
    [
        (Width.X86_32, {2: 1, 1: 1}),
        (Width.X86_32P, {3: 1, 2: 4, 1: 2}),
        (Width.X86_64, {4: 1, 3: 1, 2: 1, 1: 2}),
    ],
    ids=lambda value: value.name if isinstance(value, Width) else "",
)
def test_tables_of_four_megabytes(width: Width, tables: dict[int, int]) -> None:
    layout = plan(small_image(width), 16 * MIB)
    levels = [table.level for table in layout.tables]
    assert layout.virt_end == 4 << 20
    assert levels == sorted(levels, reverse=True)
    assert {level: levels.count(level) for level in levels} == tables
    assert layout.page_tables.nr_frames == len(levels)
    assert layout.tables[0].pfn == layout.page_tables.pfn


def test_pae_kernel_at_3_gib_needs_one_l2_table() -> None:
    layout = plan(small_image(Width.X86_32P, virt_base=0xC0000000), 16 * MIB)
    assert [table.linear for table in layout.tables if table.level == 2] == [0xC0000000]


def test_mapping_across_a_gib_has_two_l2_tables() -> None:
    base = 0x40000000 - (512 << 10)
    layout = plan(small_image(Width.X86_64, virt_base=base), 16 * MIB)
    assert [t.linear for t in layout.tables if t.level == 2] == [0, 0x40000000]


def test_padding_of_512_kib_may_cost_another_4_mib() -> None:
    # the last element ends where exactly 512 KiB are left, and one page later
    small = plan(small_image(Width.X86_32, start=0), 4 * MIB)
    spare = (small.virt_end >> 12) - small.boot_stack.end_pfn - 128
    fits = small_image(Width.X86_32, start=0, size_bytes=0x2800 + (spare << 12))
    over = small_image(Width.X86_32, start=0, size_bytes=0x2800 + (spare + 1 << 12))
    assert plan(fits, 4 * MIB).virt_end == 4 << 20
    assert plan(over, 8 * MIB).virt_end == 8 << 20


def test_init_p2m_moves_the_list_out_of_the_mapping() -> None:
    image = small_image(
        Width.X86_64, virt_base=0xFFFFFFFF80000000, INIT_P2M=0x8000000000, MOD_START_PFN=1
    )
    layout = plan(image, 16 * MIB, ramdisk=b"r" * 5000)
    assert layout.p2m_tables is not None
    assert layout.ramdisk is not None
    assert layout.start_info.pfn == layout.kernel.end_pfn
    assert (layout.ramdisk.pfn, layout.ramdisk.vaddr) == (4 * MIB, None)
    assert (layout.p2m.pfn, layout.p2m.vaddr) == (4 * MIB + 2, 0x8000000000)
    assert layout.p2m_tables.pfn == layout.p2m.end_pfn
    assert [(t.level, t.linear) for t in layout.tables[layout.page_tables.nr_frames :]] == [
        (3, 0x8000000000),
        (2, 0x8000000000),
        (1, 0x8000000000),
    ]
    assert layout.end_pfn == layout.p2m_tables.end_pfn


def test_init_p2m_near_the_mapping_shares_its_upper_tables() -> None:
    image = small_image(Width.X86_64, virt_base=0x10000000, INIT_P2M=0x8000000)
    layout = plan(image, 16 * MIB)
    assert [t.level for t in layout.tables[layout.page_tables.nr_frames :]] == [1]


@pytest.mark.parametrize(
    ("width", "wish"),
    [(Width.X86_32P, 0x8000000), (Width.X86_64, 0x8000010), (Width.X86_64, 0x20000000)],
    ids=["32-bit", "unaligned", "above the image"],
)
def test_init_p2m_that_xen_does_not_grant_is_passed_over(width: Width, wish: int) -> None:
    layout = plan(small_image(width, virt_base=0x10000000, INIT_P2M=wish), 16 * MIB)
    assert layout.p2m_tables is None
    assert layout.p2m.pfn == layout.kernel.end_pfn


def test_command_line_of_1023_bytes_fits() -> None:
    assert len(plan(small_image(Width.X86_32), 16 * MIB, "x" * 1023).cmdline) == 1023


@pytest.mark.parametrize(
    ("cmdline", "sentence"),
    [
        ("x" * 1024, r"^the command line has 1024 bytes, start_info holds 1023$"),
        ("é" * 512, r"^the command line has 1024 bytes, start_info holds 1023$"),
        ("a\0b", r"^the command line has a zero byte in it$"),
    ],
)
def test_impossible_command_line_is_refused(cmdline: str, sentence: str) -> None:
    with pytest.raises(BuildError, match=sentence):
        plan(small_image(Width.X86_32), 16 * MIB, cmdline)


def test_too_little_memory_is_refused() -> None:
    plan(small_image(Width.X86_64), 4 * MIB)
    with pytest.raises(
        BuildError,
        match=r"^too little memory: the kernel needs at least 4096 KiB to start, "
        r"the domain has 4092 KiB$",
    ):
        plan(small_image(Width.X86_64), 4 * MIB - 1)


def test_absurd_size_is_refused_before_its_tables_are_counted() -> None:
    image = small_image(Width.X86_64, size_bytes=1 << 46)
    with pytest.raises(BuildError, match=r"^too little memory: the kernel needs at least 68719476"):
        plan(image, 16 * MIB)


@pytest.mark.parametrize(
    ("width", "base", "sentence"),
    [
        (
            Width.X86_32,
            0xFC000000 - 0x3000,
            r"^the initial mapping 0xfbffd000 to 0xfc400000 reaches into Xen's part at 0xfc000000$",
        ),
        (
            Width.X86_32P,
            0xF5800000 - 0x3000,
            r"^the initial mapping 0xf57fd000 to 0xf5c00000 reaches into Xen's part at 0xf5800000$",
        ),
        (
            Width.X86_64,
            0xFFFF800000000000,
            r"^the initial mapping 0xffff800000000000 to 0xffff800000400000 "
            r"reaches into Xen's part at 0xffff800000000000$",
        ),
        (
            Width.X86_64,
            0x800000000000,
            r"^the initial mapping 0x800000000000 to 0x800000400000 is not canonical$",
        ),
    ],
    ids=["x86_32", "x86_32p", "x86_64", "not canonical"],
)
def test_mapping_outside_of_what_is_the_guests_is_refused(
    width: Width, base: int, sentence: str
) -> None:
    with pytest.raises(BuildError, match=sentence):
        plan(small_image(width, virt_base=base), 16 * MIB)


def test_mapping_may_end_where_xens_part_starts() -> None:
    layout = plan(small_image(Width.X86_32P, virt_base=0xF5400000), 16 * MIB)
    assert layout.virt_end == 0xF5800000


def test_list_that_runs_into_the_mapping_is_refused() -> None:
    image = small_image(Width.X86_64, virt_base=0x10000000, INIT_P2M=0xFFFF000)
    with pytest.raises(
        BuildError,
        match=r"^the pfn-to-mfn list 0xffff000 to 0x10007000 "
        r"reaches into the initial mapping at 0x10000000$",
    ):
        plan(image, 16 * MIB)


def test_list_in_xens_part_is_refused() -> None:
    image = small_image(Width.X86_64, virt_base=0xFFFFFFFF80000000, INIT_P2M=0xFFFF800000000000)
    with pytest.raises(BuildError, match=r"^the pfn-to-mfn list 0xffff800000000000 to 0x"):
        plan(image, 16 * MIB)


@given(
    width=st.sampled_from(WIDTHS),
    base=st.integers(0, 0x80000).map(lambda page: page << 12),
    start=st.integers(0, 0x500000),
    size=st.integers(1, 0x500000),
    ramdisk=st.integers(0, 20000),
    memory=st.integers(16 * MIB, 64 * MIB),
)
@settings(max_examples=60, deadline=None)
def test_every_plan_keeps_the_rules(
    width: Width, base: int, start: int, size: int, ramdisk: int, memory: int
) -> None:
    image = small_image(width, virt_base=base, start=start, size_bytes=size)
    layout = plan(image, memory, ramdisk=b"r" * ramdisk)
    mapped = layout.virt_end - layout.virt_base >> 12
    assert layout.virt_end % (4 << 20) == 0
    assert mapped - layout.boot_stack.end_pfn >= 128
    assert mapped <= layout.end_pfn <= memory
    for region in regions(layout):
        assert region.vaddr == base + (region.pfn << 12)
    pfns = [table.pfn for table in layout.tables]
    assert pfns == list(range(layout.page_tables.pfn, layout.page_tables.end_pfn))
