"""docs/direct-paging.md shows what its commands print, and points to what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.pages import commands_of, in_shape, printed_by

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
PAGE = DOCS / "direct-paging.md"


@pytest.mark.parametrize(("command", "output"), commands_of(PAGE))
def test_a_command_prints_what_the_page_says(command: str, output: str, tmp_path: Path) -> None:
    assert in_shape(printed_by(command, tmp_path)) == in_shape(output)


def test_there_are_commands() -> None:
    assert len(commands_of(PAGE)) >= 9


def test_its_contents_name_its_sections() -> None:
    text = PAGE.read_text()
    headings = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) == headings


def test_the_code_it_points_to_exists() -> None:
    linked = re.findall(r"\]\((\.\./hypervisor/[\w/.]+)\)", PAGE.read_text())
    assert len(linked) >= 5
    assert [path for path in linked if not (DOCS / path).resolve().is_file()] == []
