"""The guests' build: the same bytes anywhere, nothing made twice, and images a PV loader takes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from guests import WIDTHS, build, built_guests, guest_path
from hypervisor.abi.width import Width
from hypervisor.domain.image import load_image

NAMES = build.NAMES
EVERY_KERNEL = [(name, width) for width in WIDTHS for name in NAMES]


@pytest.fixture(scope="module")
def somewhere_else(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a second build of everything, made from scratch."""
    out = tmp_path_factory.mktemp("guests") / "a path of another length"
    build.build(out)
    return out


@pytest.mark.parametrize(("name", "width"), EVERY_KERNEL)
def test_two_builds_are_the_same_bytes(name: str, width: str, somewhere_else: Path) -> None:
    again = somewhere_else / width / f"{name}.elf"
    assert again.read_bytes() == guest_path(name, width).read_bytes()


def test_second_build_makes_nothing(somewhere_else: Path) -> None:
    assert build.build(somewhere_else) == []


def test_changed_output_is_not_trusted_without_its_key(somewhere_else: Path) -> None:
    kernel = somewhere_else / "x86_32" / "hello.elf"
    right = kernel.read_bytes()
    kernel.unlink()
    assert build.build(somewhere_else) == [kernel]
    assert kernel.read_bytes() == right


def test_all_guests_are_found_built_for_all_widths() -> None:
    assert {guest.name: guest.widths for guest in built_guests().values()} == dict.fromkeys(
        NAMES, WIDTHS
    )


@pytest.mark.parametrize(("name", "width"), EVERY_KERNEL)
def test_segments_are_never_writable_and_executable(name: str, width: str) -> None:
    elf = ELFFile(io.BytesIO(guest_path(name, width).read_bytes()))
    flags = [s["p_flags"] for s in elf.iter_segments("PT_LOAD")]
    assert flags == [5, 4, 6]  # code, constants, data


def _symbol(kernel: bytes, name: str) -> int:
    table = ELFFile(io.BytesIO(kernel)).get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    found = table.get_symbol_by_name(name)
    assert found is not None
    return int(found[0]["st_value"])


@pytest.mark.parametrize("width", WIDTHS)
def test_loader_reads_what_the_kernel_says_of_itself(width: str) -> None:
    data = guest_path("hello", width).read_bytes()
    image = load_image(data)
    assert image.width is Width(width)
    assert image.virt_base == (0xFFFF_FFFF_8000_0000 if width == "x86_64" else 0xC000_0000)
    assert image.entry == _symbol(data, "_start")
    assert image.hypercall_page == _symbol(data, "hypercall_page")


def test_32_bit_kernels_use_both_ways_to_speak_to_the_loader() -> None:
    old = ELFFile(io.BytesIO(guest_path("hello", "x86_32").read_bytes()))
    new = ELFFile(io.BytesIO(guest_path("hello", "x86_32p").read_bytes()))
    assert old.get_section_by_name("__xen_guest") is not None
    assert old.get_section_by_name(".note.Xen") is None
    assert new.get_section_by_name("__xen_guest") is None
    assert new.get_section_by_name(".note.Xen") is not None


def test_compiler_errors_come_out_as_they_are(tmp_path: Path) -> None:
    tools = build.Toolchain(tmp_path)
    source = tmp_path / "wrong.c"
    source.write_text("int wrong(void) { return undeclared; }\n")
    with pytest.raises(build.BuildError, match="undeclared"):
        tools.cc(["-target", "x86-freestanding-none", "-c", str(source), "-o", str(tmp_path / "o")])


def test_command_line_refuses_an_unknown_guest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        build.main(["nonesuch"])
    assert "no guest is called nonesuch" in capsys.readouterr().err
