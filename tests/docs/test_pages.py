"""Commands that pages of docs/ show print what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pages import commands_of, in_shape, printed_by

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ("time.md",)


@pytest.mark.parametrize("page", PAGES)
def test_commands_print_what_the_page_says(page: str, tmp_path: Path) -> None:
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    commands = commands_of(ROOT / "docs" / page)
    assert commands
    for command, output in commands:
        assert in_shape(printed_by(command, tmp_path)) == in_shape(output), command
