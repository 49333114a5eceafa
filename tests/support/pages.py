"""The commands that a page of the documentation shows, and what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SET_UP = re.compile(r"make |apt-get |dpkg ")
_NUMBER = re.compile(r"\b(0x)?[0-9a-f]*\d[0-9a-f]*\b")


def commands_of(page: Path) -> list[tuple[str, str]]:
    """(command, output) in the order of the page; commands that set something up are left out."""
    found = []
    for block in _BLOCK.finditer(page.read_text()):
        for part in re.split(r"^\$ ", block[1], flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if not _SET_UP.match(command):
                found.append((command, output))
    return found


def printed_by(command: str, folder: Path) -> str:
    """What a reader who stands in `folder` sees: standard output, then the rest."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "96", "LC_ALL": "C.UTF-8"}
    # fmt: off
    ran = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, timeout=60,
        capture_output=True, text=True, check=False,
    )
    # fmt: on
    return ran.stdout + ran.stderr


def in_shape(text: str) -> list[str]:
    """Lines without what moves with each build of a guest: addresses, frames, times."""
    return [" ".join(_NUMBER.sub("#", line).split()) for line in text.splitlines()]
