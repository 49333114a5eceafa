"""Xen's ELF notes: where they are looked for and what each one means."""

from __future__ import annotations

import pytest

from hypervisor.abi.elfnote import ElfNote
from hypervisor.domain.elf import ImageError, parse_elf
from hypervisor.domain.notes import read_notes
from hypervisor.domain.parms import DomParms, PaeMode
from tests.support.elf_writer import KernelSpec, Note, pack_notes, text, word, write_elf


def parms_of(*notes: Note, **spec: object) -> DomParms:
    parms = read_notes(parse_elf(write_elf(KernelSpec(notes=notes).but(**spec))))
    assert parms is not None
    return parms


@pytest.mark.parametrize(
    ("note", "field"),
    [
        (ElfNote.ENTRY, "entry"),
        (ElfNote.HYPERCALL_PAGE, "hypercall_page"),
        (ElfNote.VIRT_BASE, "virt_base"),
        (ElfNote.PADDR_OFFSET, "paddr_offset"),
        (ElfNote.HV_START_LOW, "hv_start_low"),
        (ElfNote.INIT_P2M, "init_p2m"),
        (ElfNote.PHYS32_ENTRY, "phys32_entry"),
    ],
)
@pytest.mark.parametrize("value", [0, 0xC0100000])
def test_number_is_read_and_zero_is_a_value(note: ElfNote, field: str, value: int) -> None:
    assert getattr(DomParms(), field) is None
    assert getattr(parms_of((note, word(value))), field) == value


@pytest.mark.parametrize(
    ("note", "field"),
    [
        (ElfNote.GUEST_OS, "guest_os"),
        (ElfNote.GUEST_VERSION, "guest_version"),
        (ElfNote.LOADER, "loader"),
        (ElfNote.XEN_VERSION, "xen_version"),
    ],
)
def test_text_ends_at_its_zero_byte(note: ElfNote, field: str) -> None:
    assert getattr(parms_of((note, b"abc\0def")), field) == "abc"


@pytest.mark.parametrize(
    ("desc", "value"),
    [(b"\x12", 0x12), (b"\x34\x12", 0x1234), (word(5, 64), 5), (b"abc", 0), (b"", 0)],
)
def test_number_may_have_one_two_four_or_eight_bytes(desc: bytes, value: int) -> None:
    assert parms_of((ElfNote.ENTRY, desc)).entry == value


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        ("yes", PaeMode.EXTENDED),
        ("no", PaeMode.NO),
        ("bimodal", PaeMode.BIMODAL),
        ("yes,bimodal", PaeMode.BIMODAL),
        ("maybe", PaeMode.NO),
    ],
)
def test_pae_mode(value: str, mode: PaeMode) -> None:
    assert parms_of((ElfNote.PAE_MODE, text(value))).pae is mode


@pytest.mark.parametrize(("value", "wanted"), [("yes", True), ("no", False)])
def test_bsd_symtab_takes_yes_or_no(value: str, wanted: bool) -> None:
    assert parms_of((ElfNote.BSD_SYMTAB, text(value))).bsd_symtab is wanted


@pytest.mark.parametrize("note", [ElfNote.SUSPEND_CANCEL, ElfNote.MOD_START_PFN])
@pytest.mark.parametrize("value", [0, 1])
def test_flag_is_a_number(note: ElfNote, value: int) -> None:
    parms = parms_of((note, word(value)))
    assert getattr(parms, note.name.lower()) is bool(value)


def test_features_of_both_notes_add_up() -> None:
    parms = parms_of(
        (ElfNote.FEATURES, text("writable_page_tables|!pae_pgdir_above_4gb|novel")),
        (ElfNote.SUPPORTED_FEATURES, word(0x8801)),
    )
    assert parms.supported == 0x8801 | 1 << 4
    assert parms.required == 1 << 4
    assert parms.states_supported


def test_unknown_required_feature_is_refused() -> None:
    with pytest.raises(
        ImageError, match=r"^the kernel requires feature 'novel', which is unknown$"
    ):
        parms_of((ElfNote.FEATURES, text("!novel")))


def test_later_note_replaces_an_earlier_one() -> None:
    assert parms_of((ElfNote.ENTRY, word(1)), (ElfNote.ENTRY, word(2))).entry == 2


def test_notes_that_no_loader_needs_are_passed_over() -> None:
    pairs = (ElfNote.L1_MFN_VALID, word(1, 64) * 2), (ElfNote.INFO, text("A=B")), (999, b"")
    assert parms_of(*pairs) == DomParms()


def test_note_that_claims_too_much_gets_what_there_is() -> None:
    notes = [(ElfNote.ENTRY, word(4)), (ElfNote.PAE_MODE, b"yes\0 bimodal")]
    size = len(pack_notes(notes)) - 8
    assert parms_of(*notes, note_segment_size=size).pae is PaeMode.EXTENDED


def test_sections_serve_when_no_segment_has_notes() -> None:
    sections = [[(ElfNote.ENTRY, word(0x10))], [(ElfNote.VIRT_BASE, word(0x20))]]
    parms = parms_of(note_sections=sections)
    assert (parms.entry, parms.virt_base) == (0x10, 0x20)


def test_sections_are_left_alone_when_a_segment_has_notes() -> None:
    parms = parms_of((ElfNote.ENTRY, word(1)), note_sections=[[(ElfNote.VIRT_BASE, word(2))]])
    assert (parms.entry, parms.virt_base) == (1, None)


def test_notes_of_others_do_not_count() -> None:
    foreign = pack_notes([(ElfNote.ENTRY, word(1))], owner=b"GNU\0")
    data = write_elf(KernelSpec(extra_sections=[(".note.gnu", 7, foreign)]))
    assert read_notes(parse_elf(data)) is None
