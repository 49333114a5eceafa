"""Where everything of a new domain goes: planned completely before a byte is written.

A PV guest starts in one stretch of virtual memory, from its virtual base to a 4 MB boundary, which
maps pseudo-physical frames 0, 1, 2, ... in order. In it stand, each on a page of its own: the
image, the ramdisk, the pfn-to-mfn list, start_info, the xenstore and the console page (not in
Dom0), the page tables with the top-level one first, the boot stack; then at least 512 KB of padding
("Start-of-day memory layout" in public/xen.h). A guest may ask for the list at an address of its
own (INIT_P2M), and may leave the ramdisk unmapped (MOD_START_PFN): those follow behind the stretch,
the ramdisk first, the list with the tables that map it last, as Xen's toolstack does it
(xc_dom_build_image).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hypervisor.abi.width import Width
from hypervisor.abi.xen import MAX_GUEST_CMDLINE
from hypervisor.domain.image import GuestImage
from hypervisor.mm.entries import PAGING_MODE
from hypervisor.mm.hole_map import HOLE
from hypervisor.x86.paging import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, PagingMode

MAX_CMDLINE_BYTES: Final = MAX_GUEST_CMDLINE - 1  # a zero byte stands behind it
_BOUNDARY: Final = 4 << 20
_PADDING_FRAMES: Final = (512 << 10) >> PAGE_SHIFT
_STACK_FRAMES: Final = 1
_PAE_L2_SLOTS: Final = 4


class BuildError(ValueError):
    """A domain that cannot be built as asked for; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Region:
    """Consecutive pseudo-physical frames with one purpose, mapped from `vaddr` on if at all."""

    name: str
    pfn: int
    nr_frames: int
    vaddr: int | None

    @property
    def end_pfn(self) -> int:
        """The first frame behind it."""
        return self.pfn + self.nr_frames


@dataclass(frozen=True, slots=True)
class Table:
    """One page-table frame: its level, its frame, and the first linear address that it maps.

    The address is without sign extension: 0 to 2**48 for x86_64, 0 to 2**32 for the others.
    """

    level: int
    pfn: int
    linear: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A domain's start of day."""

    width: Width
    mode: PagingMode
    nr_frames: int  # of the domain
    virt_base: int
    virt_end: int  # of the initial mapping
    kernel: Region
    ramdisk: Region | None
    p2m: Region
    start_info: Region
    xenstore: Region | None  # None in Dom0, and so the console
    console: Region | None
    page_tables: Region
    boot_stack: Region
    p2m_tables: Region | None  # what maps an INIT_P2M list, beyond `page_tables`
    tables: tuple[Table, ...]  # those of `page_tables` in order, then those of `p2m_tables`
    end_pfn: int  # frames from here on are free
    cmdline: bytes
    ramdisk_data: bytes
    initial_domain: bool

    @property
    def mappings(self) -> tuple[tuple[int, int, int], ...]:
        """What the tables map: (linear address, first pfn, frames) each."""
        mask = _linear_mask(self.mode)
        frames = (self.virt_end - self.virt_base) >> PAGE_SHIFT
        first = (self.virt_base & mask, 0, frames)
        if self.p2m_tables is None or self.p2m.vaddr is None:
            return (first,)
        return first, (self.p2m.vaddr & mask, self.p2m.pfn, self.p2m.nr_frames)


class _Frames:
    """Hands out pseudo-physical frames in order, mapped at `virt_base + pfn * 4096`."""

    def __init__(self, virt_base: int) -> None:
        self.virt_base = virt_base
        self.pfn = 0

    @property
    def vaddr(self) -> int:
        return self.virt_base + (self.pfn << PAGE_SHIFT)

    def skip_to(self, vaddr: int) -> None:
        self.pfn = (vaddr - self.virt_base) >> PAGE_SHIFT

    def take(self, name: str, nr_frames: int) -> Region:
        return self.take_at(name, nr_frames, self.vaddr)

    def take_at(self, name: str, nr_frames: int, vaddr: int | None) -> Region:
        """The next frames, mapped elsewhere or not at all."""
        region = Region(name, self.pfn, nr_frames, vaddr)
        self.pfn += nr_frames
        return region


def plan(
    image: GuestImage,
    nr_frames: int,
    cmdline: str = "",
    ramdisk: bytes | None = None,
    *,
    initial_domain: bool = False,
) -> Layout:
    """The start of day of `image` in a domain of `nr_frames` frames.

    Raises BuildError: too little memory, a mapping that does not fit, a command line too long.
    """
    command = _encode_cmdline(cmdline)
    mode = PAGING_MODE[image.width]
    data = ramdisk or b""
    p2m_vaddr = _init_p2m(image)
    p2m_frames = _frames(nr_frames * image.width.word_bytes)

    frames = _Frames(image.virt_base)
    frames.skip_to(image.start & ~PAGE_MASK)
    kernel = frames.take("kernel", _frames(image.end - (image.start & ~PAGE_MASK)))
    initrd = None
    if data and not image.mod_start_pfn:
        initrd = frames.take("ramdisk", _frames(len(data)))
    p2m = frames.take("p2m", p2m_frames) if p2m_vaddr is None else None
    start_info = frames.take("start_info", 1)
    xenstore = None if initial_domain else frames.take("xenstore", 1)
    console = None if initial_domain else frames.take("console", 1)
    _check_memory(frames.pfn, nr_frames)  # before the tables: a hostile image may want millions

    spans, virt_end = _initial_tables(mode, image.virt_base, frames.vaddr)
    _check_range("the initial mapping", image.virt_base, virt_end, image.width)
    page_tables = frames.take("page tables", len(spans))
    tables = _tables(page_tables, spans)
    boot_stack = frames.take("boot stack", _STACK_FRAMES)
    frames.skip_to(virt_end)

    if data and image.mod_start_pfn:
        initrd = frames.take_at("ramdisk", _frames(len(data)), None)
    p2m_tables = None
    if p2m is None:
        p2m = frames.take_at("p2m", p2m_frames, p2m_vaddr)
        p2m_spans = _p2m_tables(mode, image, p2m, spans)
        p2m_tables = frames.take_at("p2m tables", len(p2m_spans), None)
        tables += _tables(p2m_tables, p2m_spans)
    _check_memory(frames.pfn, nr_frames)
    return Layout(
        width=image.width,
        mode=mode,
        nr_frames=nr_frames,
        virt_base=image.virt_base,
        virt_end=virt_end,
        kernel=kernel,
        ramdisk=initrd,
        p2m=p2m,
        start_info=start_info,
        xenstore=xenstore,
        console=console,
        page_tables=page_tables,
        boot_stack=boot_stack,
        p2m_tables=p2m_tables,
        tables=tuple(tables),
        end_pfn=frames.pfn,
        cmdline=command,
        ramdisk_data=data,
        initial_domain=initial_domain,
    )


def _frames(size_bytes: int) -> int:
    return (size_bytes + PAGE_MASK) >> PAGE_SHIFT


def _check_memory(needed_frames: int, nr_frames: int) -> None:
    if needed_frames > nr_frames:
        raise BuildError(
            f"too little memory: the kernel needs at least {needed_frames * PAGE_SIZE >> 10} KiB "
            f"to start, the domain has {nr_frames * PAGE_SIZE >> 10} KiB"
        )


def _encode_cmdline(cmdline: str) -> bytes:
    encoded = cmdline.encode("utf-8", "surrogateescape")
    if len(encoded) > MAX_CMDLINE_BYTES:
        raise BuildError(
            f"the command line has {len(encoded)} bytes, start_info holds {MAX_CMDLINE_BYTES}"
        )
    if b"\0" in encoded:
        raise BuildError("the command line has a zero byte in it")
    return encoded


def _init_p2m(image: GuestImage) -> int | None:
    """Where the guest wants its list; None for behind the image.

    A wish that Xen's toolstack does not grant is no error, the guest reads the address from
    start_info: not for a 32-bit guest, not above the image, not unaligned.
    """
    wish = image.init_p2m
    if wish is None or not image.width.is_64 or wish & PAGE_MASK or wish >= image.virt_base:
        return None
    return wish


def _linear_mask(mode: PagingMode) -> int:
    """The address bits that take part in a walk."""
    return (1 << 48) - 1 if mode.levels == 4 else (1 << 32) - 1


def _span_shift(mode: PagingMode, level: int) -> int:
    """log2 of what one table of `level` maps; the top-level one maps everything."""
    return 64 if level == mode.levels else mode.shifts[level + 1]


def _spans(mode: PagingMode, start: int, end: int) -> list[tuple[int, int]]:
    """The tables that map [start, end): (level, first linear address), from the top down."""
    mask = _linear_mask(mode)
    first, last = start & mask, end - 1 & mask
    spans = []
    for level in range(mode.levels, 0, -1):
        shift = _span_shift(mode, level)
        spans += [(level, i << shift) for i in range(first >> shift, (last >> shift) + 1)]
    return spans


def _initial_tables(mode: PagingMode, start: int, used: int) -> tuple[list[tuple[int, int]], int]:
    """The tables of the initial mapping, and where it ends, if `used` is where they go themselves.

    More tables may push the end over the next boundary, which may need more tables.
    """
    spans: list[tuple[int, int]] = []
    while True:
        room = (len(spans) + _STACK_FRAMES + _PADDING_FRAMES) << PAGE_SHIFT
        end = (used + room + _BOUNDARY - 1) & -_BOUNDARY
        needed = _initial_spans(mode, start, end)
        if len(needed) == len(spans):
            return needed, end
        spans = needed


def _initial_spans(mode: PagingMode, start: int, end: int) -> list[tuple[int, int]]:
    """With PAE also empty L2 tables up to the one that Xen's slots are in (L3 entry 3)."""
    spans = _spans(mode, start, end)
    if mode.levels != 3:
        return spans
    shift = _span_shift(mode, 2)
    l2_tables = [(2, slot << shift) for slot in range(start >> shift, _PAE_L2_SLOTS)]
    return [(3, 0), *l2_tables, *(span for span in spans if span[0] == 1)]


def _p2m_tables(
    mode: PagingMode, image: GuestImage, p2m: Region, present: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The tables that a list outside of the initial mapping needs beyond those that are there."""
    assert p2m.vaddr is not None
    end = p2m.vaddr + (p2m.nr_frames << PAGE_SHIFT)
    _check_range("the pfn-to-mfn list", p2m.vaddr, end, image.width)
    if end > image.virt_base:
        raise BuildError(
            f"the pfn-to-mfn list {p2m.vaddr:#x} to {end:#x} "
            f"reaches into the initial mapping at {image.virt_base:#x}"
        )
    known = set(present)
    return [span for span in _spans(mode, p2m.vaddr, end) if span not in known]


def _tables(region: Region, spans: list[tuple[int, int]]) -> list[Table]:
    return [Table(level, region.pfn + i, linear) for i, (level, linear) in enumerate(spans)]


def _check_range(what: str, start: int, end: int, width: Width) -> None:
    """A mapping lies within one half of the address space and outside of Xen's part."""
    hole = HOLE[width]
    hole_bytes = (hole.end_slot - hole.first_slot) << _hole_shift(width)
    if start < hole.vaddr + hole_bytes and hole.vaddr < end:
        raise BuildError(
            f"{what} {start:#x} to {end:#x} reaches into Xen's part at {hole.vaddr:#x}"
        )
    if width.is_64 and not _is_canonical(start, end):
        raise BuildError(f"{what} {start:#x} to {end:#x} is not canonical")


def _hole_shift(width: Width) -> int:
    """log2 of what one of Xen's slots maps: an L4's in 64-bit guests, else an L2's."""
    mode = PAGING_MODE[width]
    return mode.shifts[4 if width.is_64 else 2]


def _is_canonical(start: int, end: int) -> bool:
    return end <= 1 << 47 or (start >= (1 << 64) - (1 << 47) and end <= 1 << 64)
