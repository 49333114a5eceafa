"""KERNEL on the command line: built-in guests by name, files by path, sentences for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.exits import Refusal
from cli.kernels import find_kernel, read_file
from hypervisor.abi.width import Width


def test_built_in_guest_is_found_by_its_name() -> None:
    found = find_kernel("hello", "x86_64")
    assert found.path.name == "hello.elf"
    assert found.width is Width.X86_64


def test_built_in_guest_is_32_bit_unless_asked() -> None:
    assert find_kernel("hello", "auto").width is Width.X86_32


def test_built_in_guest_wins_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hello").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert find_kernel("hello", "auto").path != Path("hello")
    assert find_kernel("./hello", "auto").path == Path("./hello")


def test_file_takes_its_width_from_the_image(tmp_path: Path) -> None:
    kernel = tmp_path / "grub-i386-xen.bin"
    kernel.write_bytes(b"x")
    found = find_kernel(str(kernel), "auto")
    assert (found.name, found.width) == ("grub-i386-xen", None)


def test_unknown_name_is_refused_with_a_hint() -> None:
    with pytest.raises(Refusal, match=r"^there is no file 'helo' .*; did you mean hello\?$"):
        find_kernel("helo", "auto")


def test_unknown_file_is_refused() -> None:
    with pytest.raises(Refusal, match=r"^there is no file '/no/such' and no built-in guest"):
        find_kernel("/no/such", "auto")


def test_width_that_is_not_built_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import cli.kernels
    from guests import GuestInfo

    only = {"hello": GuestInfo("hello", "", ("x86_32",))}
    monkeypatch.setattr(cli.kernels, "built_guests", lambda: only)
    with pytest.raises(Refusal, match=r"^the built-in guest hello is not built for x86_64"):
        find_kernel("hello", "x86_64")


@pytest.mark.parametrize("name", [".", "nothing"])
def test_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refusal, match=r"^cannot read the ramdisk '.*': (is a|no such)"):
        read_file(tmp_path / name, "ramdisk")
