"""Commands that pages of docs/ show print what they say, and their pictures can be drawn."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support.pages import commands_of, in_shape, printed_by

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ("time.md", "running.md")
PICTURES = ("fair", "decoder")
_SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_print_what_the_page_says(page: str, tmp_path: Path) -> None:
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    commands = commands_of(ROOT / "docs" / page)
    assert commands
    for command, output in commands:
        assert in_shape(printed_by(command, tmp_path)) == in_shape(output), command


def shares(picture: Path) -> dict[str, float]:
    """Lanes by name, with the share of time on a CPU, in per cent."""
    lanes: dict[str, float] = {}
    for rect in ET.parse(picture).getroot().iter(f"{_SVG}rect"):
        title = rect.find(f"{_SVG}title")
        told = None if title is None else re.match(r"(\S+) \(d\d+v\d+\) on a", title.text or "")
        if told is not None:
            width = float(rect.get("width", "")) * float(rect.get("fill-opacity", ""))
            lanes[told[1]] = lanes.get(told[1], 0.0) + width / 10
    return lanes


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_what_its_sample_draws(name: str, tmp_path: Path) -> None:
    """To two per cent: a guest that was built anew may be some instructions longer."""
    printed_by(f"ring1 run {ROOT}/samples/{name}.toml --plain --gantt new.svg", tmp_path)
    there, here = shares(ROOT / "docs" / "pictures" / f"{name}.svg"), shares(tmp_path / "new.svg")
    assert list(there) == list(here)
    assert list(there.values()) == pytest.approx(list(here.values()), abs=2)
