"""The older way to describe a kernel: the `__xen_guest` section."""

from __future__ import annotations

import pytest

from hypervisor.domain.elf import ImageError, parse_elf
from hypervisor.domain.parms import DomParms, PaeMode
from hypervisor.domain.xen_guest import read_xen_guest
from tests.support.elf_writer import KernelSpec, write_elf


def parms_of(section: str) -> DomParms:
    parms = read_xen_guest(parse_elf(write_elf(KernelSpec(xen_guest=section))))
    assert parms is not None
    return parms


def test_everything_is_read() -> None:
    parms = parms_of(
        "GUEST_OS=linux,GUEST_VER=2.6,XEN_VER=xen-3.0,VIRT_BASE=0xC0000000,"
        "ELF_PADDR_OFFSET=0xC0000000,VIRT_ENTRY=0xc0100000,HYPERCALL_PAGE=0x101,"
        "FEATURES=writable_page_tables|!pae_pgdir_above_4gb,PAE=yes[extended-cr3],"
        "LOADER=generic,BSD_SYMTAB"
    )
    assert parms == DomParms(
        virt_base=0xC0000000,
        entry=0xC0100000,
        hypercall_page=0xC0101000,
        paddr_offset=0xC0000000,
        pae=PaeMode.EXTENDED,
        supported=1 | 1 << 4,
        required=1 << 4,
        bsd_symtab=True,
        loader="generic",
        guest_os="linux",
        guest_version="2.6",
        xen_version="xen-3.0",
    )


@pytest.mark.parametrize(
    ("value", "mode"), [("yes", PaeMode.YES), ("no", PaeMode.NO), ("yes[x]", PaeMode.YES)]
)
def test_plain_pae_means_a_top_level_table_below_4_gib(value: str, mode: PaeMode) -> None:
    assert parms_of(f"PAE={value}").pae is mode


def test_hypercall_page_without_a_base_counts_from_zero() -> None:
    assert parms_of("HYPERCALL_PAGE=2").hypercall_page == 0x2000


@pytest.mark.parametrize(("digits", "value"), [("0x10", 16), ("010", 8), ("10", 10), ("0", 0)])
def test_numbers_are_in_c_notation(digits: str, value: int) -> None:
    assert parms_of(f"VIRT_ENTRY={digits}").entry == value


def test_text_ends_at_a_zero_byte() -> None:
    assert parms_of("LOADER=generic\0,GUEST_OS=linux").guest_os == ""


def test_unknown_names_are_passed_over() -> None:
    assert parms_of("COLOUR=blue") == DomParms()


@pytest.mark.parametrize("digits", ["zero", "", "-1", "0x10000000000000000"])
def test_bad_number_is_refused(digits: str) -> None:
    with pytest.raises(
        ImageError, match=rf"^__xen_guest says VIRT_BASE={digits}, which is not a number of 64 bits"
    ):
        parms_of(f"VIRT_BASE={digits}")


def test_file_without_the_section_says_nothing() -> None:
    assert read_xen_guest(parse_elf(write_elf(KernelSpec()))) is None
