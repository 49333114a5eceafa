"""Start of day: a planned domain written into its machine frames.

`build` fills frames that belong to the domain, and that arrive zeroed, by the list pfn -> mfn; what
it does not fill (the gaps, the bss, the padding) therefore reads as zero. The page tables it writes
name frames of that list only. They are raw: nothing of Xen's stands in them yet, and none of them
counts as a page table until mm has validated it from the root on. Every frame used as a table is
mapped read-only, or that validation would refuse it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hypervisor.abi.layout import layout as layout_of
from hypervisor.abi.width import Width
from hypervisor.abi.xen import (
    SIF_INITDOMAIN,
    SIF_MOD_START_PFN,
    SIF_PRIVILEGED,
    StartInfo,
)
from hypervisor.domain.hypercall_page import hypercall_page
from hypervisor.domain.image import GuestImage
from hypervisor.domain.layout import BuildError, Layout, Region, Table, plan
from hypervisor.domain.parms import PaeMode
from hypervisor.machine.memory import MachineMemory
from hypervisor.x86.paging import (
    PAGE_SHIFT,
    PAGE_SIZE,
    PTE_A,
    PTE_D,
    PTE_P,
    PTE_RW,
    PTE_US,
    make_pte,
)

__all__ = ["BuildError", "BuildParams", "Layout", "PageTableFrame", "StartOfDay", "build", "plan"]

# As Xen's toolstack enters them (xc_dom_params in xg_dom_x86.c). Xen itself adds U to a 64-bit
# guest's leaves.
_LEAF: Final = PTE_P | PTE_RW | PTE_A
_LEAF_READ_ONLY: Final = PTE_P | PTE_A
_UPPER: Final = PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D

_FRAMES_IN_4_GIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BuildParams:
    """What the builder is told of the domain, beyond its image and its frames."""

    shared_info_maddr: int
    store_port: int = 0
    console_port: int = 0
    flags: int = 0  # SIF_*; those that follow from the layout are added


@dataclass(frozen=True, slots=True)
class PageTableFrame:
    """A frame that must become a page table of `level` before the domain may run."""

    mfn: int
    level: int


@dataclass(frozen=True, slots=True)
class StartOfDay:
    """Where the first vCPU starts, and the frames that others need to know of."""

    entry: int
    stack_top: int  # virtual address behind the boot stack
    start_info: int  # virtual address
    pt_base: int  # virtual address of the top-level table
    virt_end: int
    root_mfn: int
    page_tables: tuple[PageTableFrame, ...]  # the root first, leaves last
    start_info_mfn: int
    store_mfn: int  # 0 in Dom0, as the console's
    console_mfn: int


def build(
    memory: MachineMemory,
    image: GuestImage,
    p2m: Sequence[int],
    layout: Layout,
    params: BuildParams,
) -> StartOfDay:
    """The domain's memory is as its kernel expects it at its first instruction.

    `p2m[pfn]` is the machine frame of each pseudo-physical one. Raises BuildError when these frames
    do not do for this width.
    """
    _check_frames(image, p2m, layout)
    write_image(memory, image, p2m)
    if layout.ramdisk is not None:
        _write(memory, p2m, layout.ramdisk.pfn << PAGE_SHIFT, layout.ramdisk_data)
    words = array("Q" if layout.width.is_64 else "I", p2m)
    _write(memory, p2m, layout.p2m.pfn << PAGE_SHIFT, words.tobytes())
    _write_page_tables(memory, p2m, layout)
    start_info = _start_info(p2m, layout, params)
    memory.frame(p2m[layout.start_info.pfn])[:] = start_info.ljust(PAGE_SIZE, b"\0")
    return _start_of_day(image, p2m, layout)


def write_image(memory: MachineMemory, image: GuestImage, p2m: Sequence[int]) -> None:
    """The kernel's segments, its symbol table and its hypercall page are in their frames."""
    base = image.virt_base
    for segment in image.segments:
        _write(memory, p2m, segment.vaddr - base, segment.data)
    if image.bsd_symtab is not None:
        _write(memory, p2m, image.bsd_symtab_vaddr - base, image.bsd_symtab)
    if image.hypercall_page is not None:
        _write(memory, p2m, image.hypercall_page - base, hypercall_page(image.width))


def _check_frames(image: GuestImage, p2m: Sequence[int], layout: Layout) -> None:
    assert len(p2m) == layout.nr_frames, f"{len(p2m)} frames for a plan of {layout.nr_frames}"
    if image.width is Width.X86_32 and (highest := max(p2m)) >= _FRAMES_IN_4_GIB:
        raise BuildError(f"mfn {highest:#x} lies above 4 GiB, out of reach of x86_32 page tables")
    root = p2m[layout.page_tables.pfn]
    if image.pae is PaeMode.YES and root >= _FRAMES_IN_4_GIB:
        raise BuildError(
            f"mfn {root:#x} lies above 4 GiB, the kernel (PAE=yes without extended-cr3) "
            "needs its top-level page table below"
        )


def _write(
    memory: MachineMemory, p2m: Sequence[int], offset: int, data: bytes | memoryview
) -> None:
    """Copy `data` to pseudo-physical `offset`, frame by frame."""
    view = memory.view
    source = memoryview(data)
    pfn, start = offset >> PAGE_SHIFT, offset & PAGE_SIZE - 1
    done = 0
    while done < len(source):
        length = min(PAGE_SIZE - start, len(source) - done)
        maddr = (p2m[pfn] << PAGE_SHIFT) + start
        view[maddr : maddr + length] = source[done : done + length]
        done += length
        pfn += 1
        start = 0


def _write_page_tables(memory: MachineMemory, p2m: Sequence[int], layout: Layout) -> None:
    for table, entries in page_table_entries(p2m, layout):
        memory.frame(p2m[table.pfn])[:] = entries.tobytes()


def page_table_entries(p2m: Sequence[int], layout: Layout) -> list[tuple[Table, array[int]]]:
    """Each table with its entries, the root first."""
    mode = layout.mode
    typecode = "I" if mode.entry_bytes == 4 else "Q"
    empty = bytes(PAGE_SIZE)
    filled = {
        (table.level, table.linear): (table, array(typecode, empty)) for table in layout.tables
    }
    for table, entries in filled.values():
        if table.level == 1:
            _fill_leaf(entries, table, p2m, layout)
        if table.level < mode.levels:
            _, parent = filled[_parent(layout, table)]
            slot = mode.index(table.linear, table.level + 1)
            parent[slot] = make_pte(p2m[table.pfn], _UPPER)
    return list(filled.values())


def _parent(layout: Layout, table: Table) -> tuple[int, int]:
    """Level and first linear address of the table that names `table`."""
    level = table.level + 1
    if level == layout.mode.levels:
        return level, 0
    return level, table.linear & -layout.mode.reach(level + 1)


def _fill_leaf(entries: array[int], table: Table, p2m: Sequence[int], layout: Layout) -> None:
    """The part of each mapping that falls into this table; frames that are tables read-only."""
    first_page = table.linear >> PAGE_SHIFT
    for linear, pfn, nr_frames in layout.mappings:
        mapped_page = linear >> PAGE_SHIFT
        start = max(mapped_page, first_page)
        end = min(mapped_page + nr_frames, first_page + len(entries))
        if start >= end:
            continue
        first, last = pfn + start - mapped_page, pfn + end - mapped_page
        leaves = [mfn << PAGE_SHIFT | _LEAF for mfn in p2m[first:last]]
        for table_pfn in _overlap(layout.page_tables, first, last):
            leaves[table_pfn - first] = make_pte(p2m[table_pfn], _LEAF_READ_ONLY)
        slots = slice(start - first_page, end - first_page)
        entries[slots] = array(entries.typecode, leaves)


def _overlap(region: Region, first: int, end: int) -> range:
    """Which of the pseudo-physical frames [first, end) lie in `region`."""
    return range(max(first, region.pfn), min(end, region.end_pfn))


def _start_info(p2m: Sequence[int], layout: Layout, params: BuildParams) -> bytes:
    """The start_info page's contents (struct start_info in public/xen.h)."""
    ramdisk = layout.ramdisk
    unmapped = ramdisk is not None and ramdisk.vaddr is None
    flags = params.flags
    if layout.initial_domain:
        flags |= SIF_PRIVILEGED | SIF_INITDOMAIN
    if unmapped:
        flags |= SIF_MOD_START_PFN
    info = StartInfo(
        magic=layout.width.magic.encode(),
        nr_pages=layout.nr_frames,
        shared_info=params.shared_info_maddr,
        flags=flags,
        store_mfn=_mfn(p2m, layout.xenstore),
        store_evtchn=params.store_port,
        console_mfn=_mfn(p2m, layout.console),
        console_evtchn=params.console_port,
        pt_base=_vaddr(layout.page_tables),
        nr_pt_frames=layout.page_tables.nr_frames,
        mfn_list=_vaddr(layout.p2m),
        mod_start=0 if ramdisk is None else ramdisk.pfn if unmapped else _vaddr(ramdisk),
        mod_len=len(layout.ramdisk_data),
        cmd_line=layout.cmdline,
    )
    if layout.p2m_tables is not None:
        info.first_p2m_pfn = layout.p2m.pfn
        info.nr_p2m_frames = layout.p2m.nr_frames + layout.p2m_tables.nr_frames
    return layout_of(StartInfo, layout.width).pack(info)


def _mfn(p2m: Sequence[int], region: Region | None) -> int:
    return 0 if region is None else p2m[region.pfn]


def _vaddr(region: Region) -> int:
    assert region.vaddr is not None, f"{region.name} is mapped"
    return region.vaddr


def _start_of_day(image: GuestImage, p2m: Sequence[int], layout: Layout) -> StartOfDay:
    tables = tuple(PageTableFrame(p2m[table.pfn], table.level) for table in layout.tables)
    return StartOfDay(
        entry=image.entry,
        stack_top=_vaddr(layout.boot_stack) + (layout.boot_stack.nr_frames << PAGE_SHIFT),
        start_info=_vaddr(layout.start_info),
        pt_base=_vaddr(layout.page_tables),
        virt_end=layout.virt_end,
        root_mfn=tables[0].mfn,
        page_tables=tables,
        start_info_mfn=p2m[layout.start_info.pfn],
        store_mfn=_mfn(p2m, layout.xenstore),
        console_mfn=_mfn(p2m, layout.console),
    )
