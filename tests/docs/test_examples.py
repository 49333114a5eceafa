"""Python in the documentation runs, and prints what stands below it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
_EXAMPLE = re.compile(r"^```python\n(.*?)^```\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FRAME = re.compile(r"(ring-ref .* )\d+")  # moves with whatever the machine allocates before


def examples() -> list[tuple[str, str, str]]:
    """(page and number, code, output) of each block of Python with a block of text behind it."""
    pages = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
    return [
        (f"{page.name}-{number}", found[1], found[2])
        for page in pages
        for number, found in enumerate(_EXAMPLE.finditer(page.read_text()))
    ]


@pytest.mark.parametrize(
    ("code", "output"), [e[1:] for e in examples()], ids=[e[0] for e in examples()]
)
def test_example_prints_what_the_page_says(code: str, output: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "example", "exec"), {"__name__": "example"})
    assert _FRAME.sub(r"\1N", printed.getvalue()) == _FRAME.sub(r"\1N", output)


def test_there_are_examples() -> None:
    assert {"machine.md-0", "console-and-xenstore.md-0"} <= {name for name, _, _ in examples()}
