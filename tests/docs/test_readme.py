"""Every command that README.md shows prints what README.md shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hypervisor.testing.debian import GRUB_32, GRUB_PACKAGE
from tests.support.debian import debian_tree_or_skip

ROOT = Path(__file__).resolve().parent.parent.parent
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SET_UP = re.compile(r"make |apt-get |dpkg ")
_NUMBER = re.compile(r"\b(0x)?[0-9a-f]*\d[0-9a-f]*\b")


def shown() -> list[tuple[str, str]]:
    """(command, output) in the order of the page; commands that set something up are left out."""
    found = []
    for block in _BLOCK.finditer((ROOT / "README.md").read_text()):
        for part in re.split(r"^\$ ", block[1], flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if not _SET_UP.match(command):
                found.append((command, output))
    return found


def in_shape(text: str) -> list[str]:
    """Lines without what moves with each build of a guest: addresses, frames, times."""
    return [" ".join(_NUMBER.sub("#", line).split()) for line in text.splitlines()]


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
    commands = shown()
    assert len(commands) >= 7
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "96", "LC_ALL": "C.UTF-8"}
    for command, output in commands:
        # fmt: off
        ran = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, timeout=60,
            capture_output=True, text=True, check=False,
        )
        # fmt: on
        assert in_shape(ran.stdout + ran.stderr) == in_shape(output), command
