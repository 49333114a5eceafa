"""Every command that README.md shows prints what README.md shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypervisor.testing.debian import GRUB_32, GRUB_PACKAGE
from tests.support.debian import debian_tree_or_skip
from tests.support.pages import commands_of, in_shape, printed_by

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader would stand, Debian's GRUB unpacked."""
    made = tmp_path_factory.mktemp("tour")
    tree = debian_tree_or_skip(GRUB_PACKAGE)
    assert (tree / GRUB_32).exists()
    (made / "grub").symlink_to(tree)
    return made


@pytest.mark.real
def test_commands_print_what_the_page_says(folder: Path) -> None:
    commands = commands_of(ROOT / "README.md")
    assert len(commands) >= 7
    for command, output in commands:
        assert in_shape(printed_by(command, folder)) == in_shape(output), command
