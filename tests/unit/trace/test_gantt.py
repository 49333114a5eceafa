"""The picture of a schedule: read back as XML, all that happened is in it and in its place."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from hypervisor.abi.vcpu import Runstate
from hypervisor.trace.gantt import LABEL, MAX_EXACT, WIDTH, gantt, tick_step, time_text
from hypervisor.trace.schedule import Span

RUNNING, RUNNABLE, BLOCKED, _ = Runstate
MS = 10**6
SVG = "{http://www.w3.org/2000/svg}"

SPANS = [
    Span(1, 0, RUNNING, 0, 30 * MS),
    Span(2, 0, RUNNABLE, 0, 30 * MS),
    Span(1, 0, BLOCKED, 30 * MS, 100 * MS),
    Span(2, 0, RUNNING, 30 * MS, 60 * MS),
    Span(2, 0, RUNNING, 60 * MS, 80 * MS),
]
NAMES = {1: "left", 2: "right <&>"}


def draw(spans: list[Span] = SPANS, start: int = 0, end: int = 100 * MS) -> ET.Element:
    return ET.fromstring(gantt(spans, NAMES, start, end, "a title"))


def boxes(root: ET.Element) -> list[tuple[str, float, float, float]]:
    """(tooltip, x, width, opacity) of what is drawn in the lanes."""
    found = []
    for rect in root.iter(f"{SVG}rect"):
        if (title := rect.find(f"{SVG}title")) is not None:
            x, width, opacity = (float(rect.get(key, "")) for key in ("x", "width", "fill-opacity"))
            found.append((title.text or "", x, width, opacity))
    return found


def texts(root: ET.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def test_spans_are_where_they_were_and_neighbours_are_one() -> None:
    assert boxes(draw()) == [
        ("left (d1v0) on a CPU: 0.000 to 30.000 ms", LABEL, 300, 1.0),
        ("right <&> (d2v0) waiting for a CPU: 0.000 to 30.000 ms", LABEL, 300, 0.4),
        ("right <&> (d2v0) on a CPU: 30.000 to 80.000 ms", LABEL + 300, 500, 1.0),
    ]


def test_lanes_have_names_and_shares() -> None:
    shown = texts(draw())
    for text in ("a title", "left", "right <&>", "30.0%", "50.0%", "0 ms", "100 ms"):
        assert text in shown


def test_several_vcpus_have_lanes_of_their_own() -> None:
    shown = texts(draw([*SPANS, Span(1, 3, RUNNING, 80 * MS, 100 * MS)]))
    assert [text for text in shown if text.startswith("left")] == ["left v0", "left v3"]


def test_what_lies_outside_is_cut_off() -> None:
    assert boxes(draw(start=20 * MS, end=70 * MS)) == [
        ("left (d1v0) on a CPU: 20.000 to 30.000 ms", LABEL, 200, 1.0),
        ("right <&> (d2v0) waiting for a CPU: 20.000 to 30.000 ms", LABEL, 200, 0.4),
        ("right <&> (d2v0) on a CPU: 30.000 to 70.000 ms", LABEL + 200, 800, 1.0),
    ]


def test_more_spans_than_can_be_seen_become_columns_by_their_part() -> None:
    end = 2 * (MAX_EXACT + 1) * 1000
    spans = [Span(1, 0, RUNNING, at, at + 600) for at in range(0, end, 2000)]
    drawn = boxes(draw(spans, 0, end))
    assert sum(width for _, _, width, _ in drawn) == pytest.approx(WIDTH)
    assert {opacity for _, _, _, opacity in drawn} == {0.3}
    assert "30% of it" in drawn[0][0]
    assert "the paler, the less of that time" in texts(draw(spans, 0, end))


def test_domains_differ_in_colour_and_the_states_in_height() -> None:
    rects = [rect for rect in draw().iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    fills = [rect.get("fill") for rect in rects]
    heights = [float(rect.get("height", "")) for rect in rects]
    assert fills[0] != fills[1] == fills[2]
    assert heights[0] == heights[2] > 3 * heights[1]


def test_the_same_schedule_is_the_same_picture() -> None:
    assert gantt(SPANS, NAMES, 0, 100 * MS) == gantt(list(SPANS), dict(NAMES), 0, 100 * MS)


def test_128_lanes_fit_a_page() -> None:
    spans = [Span(domid, 0, RUNNING, domid * MS, (domid + 1) * MS) for domid in range(1, 129)]
    root = draw(spans, 0, 130 * MS)
    assert int(root.get("height", "")) < 1200
    assert len(boxes(root)) == 128


def test_no_time_is_no_picture() -> None:
    with pytest.raises(ValueError, match=r"^nothing happens from 5 to 5 ns$"):
        gantt(SPANS, NAMES, 5, 5)


@pytest.mark.parametrize(
    ("duration_ns", "step_ns"),
    [(100 * MS, 10 * MS), (111 * MS, 20 * MS), (3 * 10**9, 500 * MS), (11, 1), (10**12, 10**11)],
)
def test_ticks_are_round_and_few(duration_ns: int, step_ns: int) -> None:
    assert tick_step(duration_ns) == step_ns


@pytest.mark.parametrize(
    ("time_ns", "step_ns", "text"),
    [
        (20 * MS, 10 * MS, "20 ms"),
        (1500 * MS, 500 * MS, "1.5 s"),
        (2_500_000, 500_000, "2.5 ms"),
        (30_000, 10_000, "30 us"),
        (10**9, 100 * MS, "1.0 s"),
    ],
)
def test_ticks_are_told_in_units_people_like(time_ns: int, step_ns: int, text: str) -> None:
    assert time_text(time_ns, step_ns) == text


def test_nothing_in_it_is_loaded_from_elsewhere() -> None:
    text = gantt(SPANS, NAMES, 0, 100 * MS)
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]
