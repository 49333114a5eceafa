"""From a file to an image: which statements are honoured how, and which refused."""

from __future__ import annotations

import pytest

from hypervisor.abi.elfnote import ElfNote
from hypervisor.abi.width import Width
from hypervisor.domain.image import GuestImage, ImageError, load_image
from tests.support.elf_writer import (
    KernelSpec,
    LoadSegment,
    Note,
    Symbol,
    generic_notes,
    text,
    word,
    write_elf,
)

KERNEL = KernelSpec(segments=[LoadSegment(0x1000, b"k" * 0x800, memsz=0x3000)], entry=0x1000)


def load(
    *extra: Note,
    pae: str | None = "yes",
    width: Width | None = None,
    initial_domain: bool = False,
    spec: KernelSpec = KERNEL,
    **numbers: int,
) -> GuestImage:
    notes = [*generic_notes(pae, **numbers), *extra]
    data = write_elf(spec.but(notes=notes))
    return load_image(data, width=width, initial_domain=initial_domain)


def legacy(section: str, **spec: object) -> GuestImage:
    head = "LOADER=generic,XEN_VER=xen-3.0,"
    return load_image(write_elf(KERNEL.but(xen_guest=head + section, **spec)))


# --- addresses -------------------------------------------------------------------------------


def test_defaults_are_base_zero_and_the_entry_of_the_elf_header() -> None:
    image = load()
    assert (image.virt_base, image.elf_paddr_offset, image.entry) == (0, 0, 0x1000)
    assert (image.start, image.end) == (0x1000, 0x4000)
    assert (image.hypercall_page, image.init_p2m, image.hv_start_low) == (None, None, None)


def test_entry_note_of_zero_beats_the_elf_header() -> None:
    spec = KernelSpec(entry=0x20)
    assert load(ENTRY=0, spec=spec).entry == 0


def test_segments_go_where_paddr_says() -> None:
    spec = KernelSpec(segments=[LoadSegment(0x2000, b"x" * 16, vaddr=0)])
    image = load(spec=spec, VIRT_BASE=0xC0000000, ENTRY=0xC0002000)
    assert image.segments[0].vaddr == 0xC0002000


def test_paddr_offset_is_taken_away() -> None:
    spec = KernelSpec(segments=[LoadSegment(0xC0100000, b"x" * 16)])
    image = load(spec=spec, VIRT_BASE=0xC0000000, PADDR_OFFSET=0xC0000000, ENTRY=0xC0100000)
    assert image.segments[0].vaddr == 0xC0100000


def test_64_bit_addresses_wrap_at_64_bits() -> None:
    base = 0xFFFFFFFF80000000
    spec = KernelSpec(bits=64, segments=[LoadSegment(0x1000000, b"x" * 16)])
    image = load(pae=None, spec=spec, VIRT_BASE=base, ENTRY=base + 0x1000000)
    assert image.segments[0].vaddr == base + 0x1000000


def test_segments_come_in_the_order_of_their_addresses() -> None:
    spec = KernelSpec(segments=[LoadSegment(0x5000, b"b"), LoadSegment(0x1000, b"a")], entry=0x1000)
    assert [s.vaddr for s in load(spec=spec).segments] == [0x1000, 0x5000]


def test_segment_without_any_permission_is_not_loaded() -> None:
    spec = KERNEL.but(segments=[*KERNEL.segments, LoadSegment(0x9000, b"x", flags=0)])
    assert len(load(spec=spec).segments) == 1


def test_legacy_paddr_offset_defaults_to_the_virtual_base() -> None:
    segments = [LoadSegment(0xC0100000, b"x" * 16)]
    image = legacy("VIRT_BASE=0xC0000000,PAE=yes", segments=segments, entry=0xC0100000)
    assert (image.elf_paddr_offset, image.segments[0].vaddr) == (0xC0000000, 0xC0100000)


def test_legacy_section_counts_only_without_notes() -> None:
    spec = KERNEL.but(xen_guest="LOADER=other")
    assert load(spec=spec).loader == "generic"


def test_what_the_kernel_says_of_itself_is_kept() -> None:
    image = load((ElfNote.GUEST_VERSION, text("1.5")), SUSPEND_CANCEL=1, MOD_START_PFN=1)
    assert (image.guest_os, image.guest_version) == ("test", "1.5")
    assert image.suspend_cancel
    assert image.mod_start_pfn


def test_symbols_are_there_for_reports() -> None:
    image = load(spec=KERNEL.but(symbols=[Symbol("start", 0x1000), Symbol("idle", 0x1040)]))
    assert image.symbols.describe(0x1044) == "idle+0x4"


def test_bsd_symbol_table_extends_the_image() -> None:
    spec = KERNEL.but(symbols=[Symbol("start", 0x1000)])
    image = load((ElfNote.BSD_SYMTAB, text("yes")), spec=spec)
    assert image.bsd_symtab is not None
    assert image.end == image.bsd_symtab_vaddr + len(image.bsd_symtab)


def test_bsd_symbol_table_of_a_stripped_kernel_is_left_out() -> None:
    image = load((ElfNote.BSD_SYMTAB, text("yes")))
    assert (image.bsd_symtab, image.end) == (None, 0x4000)


# --- width -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "pae", "wanted", "got"),
    [
        (64, None, None, Width.X86_64),
        (64, "no", Width.X86_64, Width.X86_64),
        (32, None, None, Width.X86_32),
        (32, "no", Width.X86_32, Width.X86_32),
        (32, "yes", None, Width.X86_32P),
        (32, "bimodal", None, Width.X86_32P),
        (32, "bimodal", Width.X86_32, Width.X86_32),
    ],
)
def test_width_follows_class_and_pae(
    bits: int, pae: str | None, wanted: Width | None, got: Width
) -> None:
    assert load(pae=pae, width=wanted, spec=KERNEL.but(bits=bits)).width is got


@pytest.mark.parametrize(
    ("bits", "pae", "wanted", "sentence"),
    [
        (64, None, Width.X86_32, "the kernel is 64-bit: it runs as x86_64, not as x86_32"),
        (
            32,
            "no",
            Width.X86_32P,
            "the kernel is 32-bit and says PAE=no: it runs as x86_32, not as x86_32p",
        ),
        (
            32,
            "bimodal",
            Width.X86_64,
            "the kernel is 32-bit and says PAE=bimodal: "
            "it runs as x86_32p or x86_32, not as x86_64",
        ),
    ],
)
def test_width_that_does_not_fit_is_refused(
    bits: int, pae: str | None, wanted: Width, sentence: str
) -> None:
    with pytest.raises(ImageError, match=f"^{sentence}$"):
        load(pae=pae, width=wanted, spec=KERNEL.but(bits=bits))


# --- features --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "pae_pgdir_above_4gb",
        "mmu_pt_update_preserve_ad",
        "highmem_assist",
        "gnttab_map_avail_bits",
    ],
)
def test_offered_feature_may_be_required(name: str) -> None:
    image = load((ElfNote.FEATURES, text(f"!{name}")))
    assert image.required_features == image.supported_features != 0


@pytest.mark.parametrize(
    "name",
    [
        "writable_descriptor_tables",
        "auto_translated_physmap",
        "supervisor_mode_kernel",
        "hvm_callback_vector",
    ],
)
def test_required_feature_that_pv_has_not_is_refused(name: str) -> None:
    sentence = f"^the kernel requires feature '{name}', which a PV domain has not$"
    with pytest.raises(ImageError, match=sentence):
        load((ElfNote.FEATURES, text(f"!{name}")))


def test_kernel_may_require_to_write_its_page_tables() -> None:
    """As Linux does: the stores are emulated."""
    image = load((ElfNote.FEATURES, text("!writable_page_tables")))
    assert image.required_features == 1 << 0


def test_kernel_that_requires_dom0_starts_as_dom0_only() -> None:
    note = (ElfNote.FEATURES, text("!dom0"))
    assert load(note, initial_domain=True).required_features == 1 << 11
    with pytest.raises(
        ImageError, match=r"^the kernel requires feature 'dom0': it can only run as Dom0$"
    ):
        load(note)


def test_kernel_that_states_features_without_dom0_is_no_dom0() -> None:
    note = (ElfNote.SUPPORTED_FEATURES, word(1))
    assert load(note).supported_features == 1
    with pytest.raises(
        ImageError, match=r"^the kernel does not support feature 'dom0': it cannot run as Dom0$"
    ):
        load(note, initial_domain=True)


# --- refusals --------------------------------------------------------------------------------


def test_file_without_notes_is_refused() -> None:
    with pytest.raises(
        ImageError,
        match=r"^this ELF file has no Xen notes or __xen_guest section: not a Xen PV kernel$",
    ):
        load_image(write_elf(KERNEL))


@pytest.mark.parametrize("described", [True, False])
def test_pvh_only_kernel_is_refused(described: bool) -> None:
    notes = [*(generic_notes() if described else []), (ElfNote.PHYS32_ENTRY, word(0x100000))]
    with pytest.raises(
        ImageError,
        match=r"^the kernel only has a PVH entry \(PHYS32_ENTRY 0x100000\): "
        r"it needs a virtual machine of type pvh, not pv$",
    ):
        load_image(write_elf(KERNEL.but(notes=notes)))


def test_kernel_with_both_entries_is_started_by_its_pv_one() -> None:
    assert load(ENTRY=0x1004, PHYS32_ENTRY=0x100000).entry == 0x1004


def test_other_loader_is_refused() -> None:
    notes = [(ElfNote.LOADER, text("own")), (ElfNote.XEN_VERSION, text("xen-3.0"))]
    with pytest.raises(
        ImageError,
        match=r"^the kernel is for loader 'own' and guest OS '': "
        r"Xen starts those for loader 'generic' and OS 'linux'$",
    ):
        load_image(write_elf(KERNEL.but(notes=notes)))


def test_linux_needs_no_loader() -> None:
    notes = [(ElfNote.GUEST_OS, text("linux")), (ElfNote.XEN_VERSION, text("xen-3.0"))]
    assert load_image(write_elf(KERNEL.but(notes=notes))).guest_os == "linux"


def test_other_interface_version_is_refused() -> None:
    notes = [(ElfNote.LOADER, text("generic")), (ElfNote.XEN_VERSION, text("xen-2.0"))]
    with pytest.raises(
        ImageError, match=r"^the kernel is for Xen interface 'xen-2.0', want 'xen-3.0'$"
    ):
        load_image(write_elf(KERNEL.but(notes=notes)))


OVERLAPPING = [LoadSegment(0x1000, b"x" * 0x20), LoadSegment(0x101F, b"y")]


@pytest.mark.parametrize(
    ("numbers", "spec", "sentence"),
    [
        (
            {"PADDR_OFFSET": 0x1000},
            KERNEL,
            r"the kernel gives PADDR_OFFSET 0x1000 without a VIRT_BASE",
        ),
        ({}, KERNEL.but(segments=[]), r"this ELF file has no segment to load"),
        (
            {},
            KERNEL.but(segments=OVERLAPPING),
            r"segments overlap: 0x1000 to 0x1020, and 0x101f to 0x1020",
        ),
        ({"VIRT_BASE": 0x10}, KERNEL, r"virtual base 0x10 is not page aligned"),
        (
            {"VIRT_BASE": 0x3000, "PADDR_OFFSET": 0x1000},
            KernelSpec(segments=[LoadSegment(0x800, b"x")]),
            r"the image starts at 0x2800, below its virtual base 0x3000",
        ),
        (
            {},
            KernelSpec(segments=[LoadSegment(0xFFFFF000, b"x", memsz=0x1001)], entry=0xFFFFF000),
            r"the image ends at 0x100000001, behind a 32-bit address space",
        ),
        ({"ENTRY": 0xFFF}, KERNEL, r"entry 0xfff lies outside the image, 0x1000 to 0x4000"),
        ({"ENTRY": 0x4000}, KERNEL, r"entry 0x4000 lies outside the image, 0x1000 to 0x4000"),
        ({"HYPERCALL_PAGE": 0x1800}, KERNEL, r"hypercall page 0x1800 is not page aligned"),
        (
            {"HYPERCALL_PAGE": 0x4000},
            KERNEL,
            r"hypercall page 0x4000 lies outside the image, 0x1000 to 0x4000",
        ),
        (
            {"INIT_P2M": 0x2000},
            KERNEL,
            r"INIT_P2M 0x2000 lies inside the image, 0x1000 to 0x4000",
        ),
        (
            {"HV_START_LOW": 0xF5800001},
            KERNEL,
            r"the kernel wants Xen at 0xf5800001 or above; for x86_32p it starts at 0xf5800000",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_impossible_statement_is_refused(
    numbers: dict[str, int], spec: KernelSpec, sentence: str
) -> None:
    with pytest.raises(ImageError, match=f"^{sentence}$"):
        load_image(write_elf(spec.but(notes=generic_notes("yes", **numbers))))


@pytest.mark.parametrize(
    ("width", "pae", "bits", "start"),
    [
        (Width.X86_32, "no", 32, 0xFC000000),
        (Width.X86_32P, "yes", 32, 0xF5800000),
        (Width.X86_64, None, 64, 0xFFFF800000000000),
    ],
    ids=lambda value: value.name if isinstance(value, Width) else None,
)
def test_hole_may_be_wanted_where_it_is(
    width: Width, pae: str | None, bits: int, start: int
) -> None:
    image = load(HV_START_LOW=start, pae=pae, spec=KERNEL.but(bits=bits))
    assert (image.width, image.hv_start_low) == (width, start)
