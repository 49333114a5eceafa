"""docs/console-and-xenstore.md shows programs and what they print: they still print that."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "console-and-xenstore.md"
EXAMPLES = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize(("program", "output"), EXAMPLES, ids=["page", "tree", "store"])
def test_an_example_prints_what_the_page_shows(program: str, output: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {})
    assert without_frames(printed.getvalue()) == without_frames(output)


def without_frames(text: str) -> str:
    """The text without frame numbers, which follow the image's size and the machine's seed."""
    return re.sub(r"(ring-ref +n0 r1  )\d+", r"\1MFN", text)
