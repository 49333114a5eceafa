"""The `__xen_guest` section: how a kernel described itself before there were ELF notes.

One text of `NAME=value` separated by commas, ending at a zero byte (elf_xen_parse_guest_info in
Xen's libelf-dominfo.c, and the LEGACY remarks in public/elfnote.h). HYPERCALL_PAGE is a page number
relative to VIRT_BASE, and the mere presence of BSD_SYMTAB means yes. Unlike Xen, a number that is
none is refused and does not count as 0.
"""

from __future__ import annotations

from hypervisor.domain.elf import ElfFile, ImageError
from hypervisor.domain.parms import DomParms, PaeMode
from hypervisor.x86.paging import PAGE_SHIFT

SECTION = b"__xen_guest"


def read_xen_guest(elf: ElfFile) -> DomParms | None:
    """The kernel's statements, or None when there is no such section."""
    section = elf.section_named(SECTION)
    if section is None:
        return None
    text = bytes(elf.bytes_of(section.offset, section.size)).split(b"\0", 1)[0].decode("latin-1")
    parms = DomParms()
    for item in text.split(","):
        name, _, value = item.partition("=")
        _take(parms, name.strip(), value.strip())
    if parms.virt_base is not None and parms.hypercall_page is not None:
        parms.hypercall_page += parms.virt_base
    return parms


def _take(parms: DomParms, name: str, value: str) -> None:
    """Enter one item; a name that is unknown is passed over."""
    match name:
        case "LOADER":
            parms.loader = value
        case "GUEST_OS":
            parms.guest_os = value
        case "GUEST_VER":
            parms.guest_version = value
        case "XEN_VER":
            parms.xen_version = value
        case "PAE":
            parms.pae = _pae_mode(value)
        case "BSD_SYMTAB":
            parms.bsd_symtab = True
        case "FEATURES":
            parms.add_features(value)
        case "VIRT_BASE":
            parms.virt_base = _number(name, value)
        case "VIRT_ENTRY":
            parms.entry = _number(name, value)
        case "ELF_PADDR_OFFSET":
            parms.paddr_offset = _number(name, value)
        case "HYPERCALL_PAGE":
            parms.hypercall_page = _number(name, value) << PAGE_SHIFT
        case _:
            pass


def _number(name: str, value: str) -> int:
    """A number in C's notation: hexadecimal by 0x, octal by a leading 0."""
    octal = len(value) > 1 and value[0] == "0" and value[1:].isdigit()
    try:
        number = int(value, 8 if octal else 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise ImageError(f"__xen_guest says {name}={value}, which is not a number of 64 bits")
    return number


def _pae_mode(value: str) -> PaeMode:
    if value == "yes[extended-cr3]":
        return PaeMode.EXTENDED
    return PaeMode.YES if value.startswith("yes") else PaeMode.NO
