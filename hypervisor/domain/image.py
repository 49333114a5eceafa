"""From a file to a kernel that can be started: everything it says, each thing honoured or refused.

`load_image` unpacks, reads the ELF headers and Xen's notes (or the older `__xen_guest`), and works
out the addresses as Xen's libelf-dominfo.c does. What comes out is a `GuestImage`: immutable, in
terms of the guest's virtual addresses, and independent of any machine. Whatever cannot be honoured
raises ImageError with one sentence that names the value and the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from hypervisor.abi.features import Feature
from hypervisor.abi.width import Width
from hypervisor.domain.bsd_symtab import bsd_symtab_start, make_bsd_symtab
from hypervisor.domain.bzimage import unwrap
from hypervisor.domain.elf import ElfFile, ImageError, parse_elf
from hypervisor.domain.notes import read_notes
from hypervisor.domain.parms import OFFERED_FEATURES, DomParms, PaeMode
from hypervisor.domain.symbols import Symbols
from hypervisor.domain.xen_guest import read_xen_guest
from hypervisor.mm.hole_map import HOLE
from hypervisor.x86.paging import PAGE_MASK

__all__ = ["GuestImage", "ImageError", "Segment", "load_image"]

_XEN_VERSION: Final = "xen-3.0"
_WIDTHS_OF_PAE: Final = {
    PaeMode.NO: (Width.X86_32,),
    PaeMode.YES: (Width.X86_32P,),
    PaeMode.EXTENDED: (Width.X86_32P,),
    PaeMode.BIMODAL: (Width.X86_32P, Width.X86_32),
}


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of the image: `data`, then zeroes up to `memsz` bytes."""

    vaddr: int  # where it goes, worked out from paddr (the file's own p_vaddr does not count)
    paddr: int
    data: memoryview
    memsz: int
    flags: int  # PF_R, PF_W, PF_X

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.vaddr + self.memsz


@dataclass(frozen=True, slots=True)
class GuestImage:
    """A PV kernel, ready to be placed. All addresses are the guest's virtual ones."""

    width: Width
    segments: tuple[Segment, ...]  # ascending, disjoint
    start: int  # of the lowest segment (virt_kstart)
    end: int  # behind the highest, and behind the BSD symbol table (virt_kend)
    virt_base: int  # where pfn 0 is mapped
    elf_paddr_offset: int
    entry: int
    hypercall_page: int | None
    init_p2m: int | None  # where the pfn-to-mfn list is wanted, when not behind the image
    mod_start_pfn: bool  # the ramdisk may stay unmapped
    supported_features: int  # bits by feature number
    required_features: int
    hv_start_low: int | None
    pae: PaeMode
    bsd_symtab: bytes | None  # goes to bsd_symtab_vaddr
    bsd_symtab_vaddr: int
    suspend_cancel: bool
    loader: str
    guest_os: str
    guest_version: str
    symbols: Symbols


def load_image(
    data: bytes, *, width: Width | None = None, initial_domain: bool = False
) -> GuestImage:
    """The PV kernel in `data`: an ELF file, a compressed one, or a Linux bzImage around one.

    `width` chooses where the kernel leaves a choice and must agree where it does not;
    `initial_domain` says that it is to run as Dom0, which some kernels cannot and some must.
    Raises ImageError.
    """
    elf = parse_elf(unwrap(data))
    parms = _statements(elf)
    _check_interface(parms)
    _check_features(parms, initial_domain)
    width = _choose_width(elf.bits, parms.pae, width)
    return _place(elf, parms, width)


def _statements(elf: ElfFile) -> DomParms:
    parms = read_notes(elf)
    if parms is not None:
        # the default paddr offset is the one thing in which the two ways differ
        if parms.paddr_offset is None:
            parms.paddr_offset = 0
        elif parms.virt_base is None:
            raise ImageError(
                f"the kernel gives PADDR_OFFSET {parms.paddr_offset:#x} without a VIRT_BASE"
            )
    else:
        parms = read_xen_guest(elf)
        if parms is None:
            raise ImageError(
                "this ELF file has no Xen notes or __xen_guest section: not a Xen PV kernel"
            )
        if parms.paddr_offset is None:
            parms.paddr_offset = parms.virt_base or 0
    return parms


_BY_EMULATION: Final = frozenset({Feature.WRITABLE_PAGE_TABLES})


def _check_interface(parms: DomParms) -> None:
    """Xen's conditions on loader and version (elf_xen_note_check), PVH-only kernels told apart.

    A Linux without PV support keeps its descriptive notes and drops those that only PV needs.
    """
    if parms.phys32_entry is not None and parms.entry is None and parms.virt_base is None:
        raise ImageError(
            f"the kernel only has a PVH entry (PHYS32_ENTRY {parms.phys32_entry:#x}): "
            "it needs a virtual machine of type pvh, not pv"
        )
    if not parms.loader.startswith("generic") and not parms.guest_os.startswith("linux"):
        raise ImageError(
            f"the kernel is for loader {parms.loader!r} and guest OS {parms.guest_os!r}: "
            "Xen starts those for loader 'generic' and OS 'linux'"
        )
    if not parms.xen_version.startswith(_XEN_VERSION):
        raise ImageError(
            f"the kernel is for Xen interface {parms.xen_version!r}, want {_XEN_VERSION!r}"
        )


def _check_features(parms: DomParms, initial_domain: bool) -> None:
    """What the kernel requires against what a PV domain can be.

    Linux requires writable_page_tables, which a PV domain is not told to have: Xen's toolstack
    compares required features with the supported ones of the same kernel only (xc_dom_parse_image),
    and its stores to page tables are carried out all the same, by emulation.
    """
    for feature in Feature:
        known = feature in OFFERED_FEATURES or feature in _BY_EMULATION or feature is Feature.DOM0
        if parms.required >> feature & 1 and not known:
            raise ImageError(
                f"the kernel requires feature {feature.name.lower()!r}, which a PV domain has not"
            )
    if parms.required >> Feature.DOM0 & 1 and not initial_domain:
        raise ImageError("the kernel requires feature 'dom0': it can only run as Dom0")
    if initial_domain and parms.states_supported and not parms.supported >> Feature.DOM0 & 1:
        raise ImageError("the kernel does not support feature 'dom0': it cannot run as Dom0")


def _choose_width(bits: int, pae: PaeMode, wanted: Width | None) -> Width:
    choice = (Width.X86_64,) if bits == 64 else _WIDTHS_OF_PAE[pae]
    if wanted is None:
        return choice[0]
    if wanted not in choice:
        what = "64-bit" if bits == 64 else f"32-bit and says PAE={pae.value}"
        allowed = " or ".join(width.value for width in choice)
        raise ImageError(f"the kernel is {what}: it runs as {allowed}, not as {wanted.value}")
    return wanted


def _place(elf: ElfFile, parms: DomParms, width: Width) -> GuestImage:
    """Work out all addresses (elf_xen_addr_calc_check) and refuse those that make no sense."""
    base = parms.virt_base or 0
    offset = parms.paddr_offset or 0
    segments = _segments(elf, base - offset)
    start, end = segments[0].vaddr, segments[-1].end
    entry = elf.entry if parms.entry is None else parms.entry
    symtab = make_bsd_symtab(elf) if parms.bsd_symtab else None
    symtab_at = bsd_symtab_start(elf.bits, end)
    if symtab is not None:
        end = symtab_at + len(symtab)
    _check_base(base, start, end, elf.bits)
    if not start <= entry < end:
        raise ImageError(f"entry {entry:#x} lies outside the image, {start:#x} to {end:#x}")
    if parms.hypercall_page is not None:
        _check_hypercall_page(parms.hypercall_page, start, end)
    if parms.init_p2m is not None and start <= parms.init_p2m < end:
        raise ImageError(
            f"INIT_P2M {parms.init_p2m:#x} lies inside the image, {start:#x} to {end:#x}"
        )
    _check_hole(parms.hv_start_low, width)
    return GuestImage(
        width=width,
        segments=segments,
        start=start,
        end=end,
        virt_base=base,
        elf_paddr_offset=offset,
        entry=entry,
        hypercall_page=parms.hypercall_page,
        init_p2m=parms.init_p2m,
        mod_start_pfn=parms.mod_start_pfn,
        supported_features=parms.supported,
        required_features=parms.required,
        hv_start_low=parms.hv_start_low,
        pae=parms.pae,
        bsd_symtab=symtab,
        bsd_symtab_vaddr=symtab_at,
        suspend_cancel=parms.suspend_cancel,
        loader=parms.loader,
        guest_os=parms.guest_os,
        guest_version=parms.guest_version,
        symbols=Symbols.of(elf),
    )


def _segments(elf: ElfFile, virt_offset: int) -> tuple[Segment, ...]:
    """The loadable segments by address. Where they go follows from p_paddr alone."""
    mask = (1 << elf.bits) - 1
    segments = sorted(
        (
            Segment(
                header.paddr + virt_offset & mask,
                header.paddr,
                elf.bytes_of(header.offset, header.filesz),
                header.memsz,
                header.flags,
            )
            for header in elf.segments
            if header.is_loadable
        ),
        key=lambda segment: segment.vaddr,
    )
    if not segments:
        raise ImageError("this ELF file has no segment to load")
    for below, above in pairwise(segments):
        if above.vaddr < below.end:
            raise ImageError(
                f"segments overlap: {below.vaddr:#x} to {below.end:#x}, "
                f"and {above.vaddr:#x} to {above.end:#x}"
            )
    return tuple(segments)


def _check_base(base: int, start: int, end: int, bits: int) -> None:
    if base & PAGE_MASK:
        raise ImageError(f"virtual base {base:#x} is not page aligned")
    if start < base:
        raise ImageError(f"the image starts at {start:#x}, below its virtual base {base:#x}")
    if end > 1 << bits:
        raise ImageError(f"the image ends at {end:#x}, behind a {bits}-bit address space")


def _check_hypercall_page(vaddr: int, start: int, end: int) -> None:
    if vaddr & PAGE_MASK:
        raise ImageError(f"hypercall page {vaddr:#x} is not page aligned")
    if not start & ~PAGE_MASK <= vaddr <= end - 1 & ~PAGE_MASK:
        raise ImageError(
            f"hypercall page {vaddr:#x} lies outside the image, {start:#x} to {end:#x}"
        )


def _check_hole(hv_start_low: int | None, width: Width) -> None:
    hole = HOLE[width].vaddr
    if hv_start_low is not None and hv_start_low > hole:
        raise ImageError(
            f"the kernel wants Xen at {hv_start_low:#x} or above; "
            f"for {width.value} it starts at {hole:#x}"
        )
