"""Xen's ELF notes: a kernel's statements to its loader (public/elfnote.h).

Notes are taken from PT_NOTE segments and, only if those hold none of Xen's, from SHT_NOTE sections
(elf_xen_parse in Xen's libelf-dominfo.c). A later note of a type replaces an earlier one. A note
may claim more bytes than its segment has (the last one in Debian's 32-bit PV-GRUB does): it gets
those that exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from hypervisor.abi.elfnote import ElfNote
from hypervisor.domain.elf import PT_NOTE, SHT_NOTE, ElfFile, ImageError
from hypervisor.domain.parms import DomParms, PaeMode

_NOTE: Final = Struct("<III")  # namesz, descsz, type
_OWNER: Final = b"Xen"
_MAX_NOTES: Final = 65536


def read_notes(elf: ElfFile) -> DomParms | None:
    """The kernel's statements, or None when there is no note of Xen's."""
    segments = [s for s in elf.segments if s.type == PT_NOTE and s.offset]
    notes = _xen_notes(elf.bytes_of(s.offset, s.filesz) for s in segments)
    if not notes:
        sections = [s for s in elf.sections[1:] if s.type == SHT_NOTE]
        notes = _xen_notes(elf.bytes_of(s.offset, s.size) for s in sections)
    if not notes:
        return None
    parms = DomParms()
    for kind, desc in notes:
        _take(parms, kind, desc)
    return parms


def iter_notes(area: memoryview) -> Iterator[tuple[bytes, int, memoryview]]:
    """Owner, type and contents of each note in `area`; the last one may be cut off."""
    at = 0
    while at + _NOTE.size <= len(area):
        namesz, descsz, kind = _NOTE.unpack_from(area, at)
        name_at = at + _NOTE.size
        desc_at = name_at + (namesz + 3 & ~3)
        name = bytes(area[name_at : name_at + min(namesz, 32)])
        yield name.split(b"\0", 1)[0], kind, area[desc_at : desc_at + descsz]
        at = desc_at + (descsz + 3 & ~3)


def _xen_notes(areas: Iterator[memoryview]) -> list[tuple[int, memoryview]]:
    found = []
    for area in areas:
        for owner, kind, desc in iter_notes(area):
            if owner == _OWNER:
                found.append((kind, desc))
            if len(found) > _MAX_NOTES:
                raise ImageError(f"bad ELF file: more than {_MAX_NOTES} Xen notes")
    return found


def _take(parms: DomParms, kind: int, desc: memoryview) -> None:
    """Enter one note; a type that is unknown, or of no use to a loader, is passed over."""
    match kind:
        case ElfNote.ENTRY:
            parms.entry = _number(desc)
        case ElfNote.HYPERCALL_PAGE:
            parms.hypercall_page = _number(desc)
        case ElfNote.VIRT_BASE:
            parms.virt_base = _number(desc)
        case ElfNote.PADDR_OFFSET:
            parms.paddr_offset = _number(desc)
        case ElfNote.XEN_VERSION:
            parms.xen_version = _text(desc)
        case ElfNote.GUEST_OS:
            parms.guest_os = _text(desc)
        case ElfNote.GUEST_VERSION:
            parms.guest_version = _text(desc)
        case ElfNote.LOADER:
            parms.loader = _text(desc)
        case ElfNote.PAE_MODE:
            parms.pae = _pae_mode(_text(desc))
        case ElfNote.FEATURES:
            parms.add_features(_text(desc))
        case ElfNote.BSD_SYMTAB:
            parms.bsd_symtab = _text(desc) == "yes"
        case ElfNote.HV_START_LOW:
            parms.hv_start_low = _number(desc)
        case ElfNote.SUSPEND_CANCEL:
            parms.suspend_cancel = bool(_number(desc))
        case ElfNote.INIT_P2M:
            parms.init_p2m = _number(desc)
        case ElfNote.MOD_START_PFN:
            parms.mod_start_pfn = bool(_number(desc))
        case ElfNote.SUPPORTED_FEATURES:
            parms.supported |= _number(desc[:4])
            parms.states_supported = True
        case ElfNote.PHYS32_ENTRY:
            parms.phys32_entry = _number(desc)
        case _:  # INFO is a remark; L1_MFN_VALID serves a saving of the domain with foreign tools
            pass


def _number(desc: memoryview) -> int:
    """A value of 1, 2, 4 or 8 bytes; any other size reads as 0 (elf_note_numeric)."""
    return int.from_bytes(desc, "little") if len(desc) in {1, 2, 4, 8} else 0


def _text(desc: memoryview) -> str:
    return bytes(desc).split(b"\0", 1)[0].decode("latin-1")


def _pae_mode(text: str) -> PaeMode:
    """A note's `yes` includes extended-cr3, unlike that of `__xen_guest` (public/elfnote.h)."""
    if "bimodal" in text:
        return PaeMode.BIMODAL
    return PaeMode.EXTENDED if text == "yes" else PaeMode.NO
