"""A schedule as a picture: SVG, one lane for each vCPU, time from left to right.

The states of a vCPU differ in height as well as in strength, and the colours of the domains are
those of Okabe and Ito, so that the picture can be read without telling colours apart. Whatever is
drawn carries a `<title>`, which browsers show as a tooltip. The same schedule gives the same bytes.

A picture has as many columns as it has; when a run has far more spans than those, each column shows
by its strength how much of it the vCPU had.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from hypervisor.abi.vcpu import Runstate
from hypervisor.trace.schedule import Span

COLOURS: Final = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c7a00", "#444444",
)  # fmt: skip
WIDTH: Final = 1000  # of the lanes
LABEL: Final = 150
SHARE: Final = 70
TOP: Final = 64
BOTTOM: Final = 66
MAX_EXACT: Final = 6000  # spans drawn one by one; beyond, columns
_MAX_TICKS: Final = 11
_STEPS: Final = (1, 2, 5)
_NS: Final = 10**9
_TEXT: Final = {
    Runstate.RUNNING: "on a CPU",
    Runstate.RUNNABLE: "waiting for a CPU",
    Runstate.BLOCKED: "asleep",
}
#: Height as a share of the lane, and opacity.
_LOOK: Final = {Runstate.RUNNING: (0.8, 1.0), Runstate.RUNNABLE: (0.24, 0.4)}


@dataclass(frozen=True, slots=True)
class Lane:
    """One vCPU's row."""

    domid: int
    vcpu_id: int
    label: str


def gantt(
    spans: Sequence[Span],
    names: Mapping[int, str],
    start_ns: int,
    end_ns: int,
    title: str = "",
) -> str:
    """The picture of what happened from `start_ns` to `end_ns`, as the text of an SVG file.

    `names` are the domains' by number; a vCPU that was never anything but offline has no lane.
    Raises ValueError for a time that is empty.
    """
    if end_ns <= start_ns:
        raise ValueError(f"nothing happens from {start_ns} to {end_ns} ns")
    inside = [span for span in spans if span.end_ns > start_ns and span.start_ns < end_ns]
    return "\n".join(_Picture(inside, names, start_ns, end_ns, title).lines()) + "\n"


def time_text(time_ns: int, step_ns: int) -> str:
    """A time with as many places as its neighbours on the axis need, in a unit people like."""
    unit, name = (_NS, "s") if step_ns >= 100 * 10**6 else (10**6, "ms")
    if step_ns < 100_000:
        unit, name = 1000, "us"
    places = 0
    while step_ns * 10**places % unit and places < 3:
        places += 1
    return f"{time_ns / unit:.{places}f} {name}"


def tick_step(duration_ns: int) -> int:
    """The distance of the axis' ticks: 1, 2 or 5 times a power of ten, at most 11 of them."""
    power = 1
    while True:
        for step in _STEPS:
            if duration_ns <= _MAX_TICKS * step * power:
                return step * power
        power *= 10


class _Picture:
    def __init__(
        self,
        spans: Sequence[Span],
        names: Mapping[int, str],
        start_ns: int,
        end_ns: int,
        title: str,
    ) -> None:
        self._names = names
        self._start_ns, self._end_ns = start_ns, end_ns
        self._title = title
        self._by_lane: dict[tuple[int, int], list[Span]] = defaultdict(list)
        for span in spans:
            self._by_lane[span.domid, span.vcpu_id].append(span)
        self._lanes = self._make_lanes()
        self._pitch = 26 if len(self._lanes) <= 24 else 14 if len(self._lanes) <= 64 else 8
        self._exact = len(spans) <= MAX_EXACT

    def _make_lanes(self) -> list[Lane]:
        nr_vcpus: dict[int, int] = defaultdict(int)
        for domid, _ in self._by_lane:
            nr_vcpus[domid] += 1
        lanes = []
        for domid, vcpu_id in sorted(self._by_lane):
            name = self._names.get(domid, f"d{domid}")
            lanes.append(
                Lane(domid, vcpu_id, f"{name} v{vcpu_id}" if nr_vcpus[domid] > 1 else name)
            )
        return lanes

    # --- the whole -------------------------------------------------------------------------------
    def lines(self) -> Iterator[str]:
        height = TOP + self._pitch * len(self._lanes) + BOTTOM
        width = LABEL + WIDTH + SHARE
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">'
        )
        yield f"<title>{escape(self._title or 'Schedule')}</title>"
        yield f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        yield from self._heading()
        yield from self._axis()
        for idx, lane in enumerate(self._lanes):
            yield from self._lane(lane, TOP + idx * self._pitch)
        yield from self._legend(height - 18)
        yield "</svg>"

    def _heading(self) -> Iterator[str]:
        if self._title:
            yield (
                f'<text x="{LABEL}" y="22" font-size="16" font-weight="bold" fill="#222222">'
                f"{escape(self._title)}</text>"
            )
        yield (
            f'<text x="{LABEL + WIDTH + SHARE - 8}" y="{TOP - 10}" text-anchor="end" '
            'fill="#555555">of a CPU</text>'
        )

    def _axis(self) -> Iterator[str]:
        bottom = TOP + self._pitch * len(self._lanes)
        step = tick_step(self._end_ns - self._start_ns)
        first = -(-self._start_ns // step) * step
        for tick in range(first, self._end_ns + 1, step):
            x = _number(self._x(tick))
            yield f'<path d="M{x} {TOP - 4}V{bottom + 4}" stroke="#dddddd"/>'
            yield (
                f'<text x="{x}" y="{bottom + 20}" text-anchor="middle" fill="#555555">'
                f"{time_text(tick, step)}</text>"
            )

    def _legend(self, y: int) -> Iterator[str]:
        x = float(LABEL)
        for state, text in _TEXT.items():
            if state in _LOOK:
                share, opacity = _LOOK[state]
                height = 16 * share
                yield (
                    f'<rect x="{_number(x)}" y="{_number(y + 2 - height)}" width="24" '
                    f'height="{_number(height)}" fill="{COLOURS[0]}" fill-opacity="{opacity}"/>'
                )
            else:
                yield f'<path d="M{_number(x)} {y + 1.5}h24" stroke="#bbbbbb"/>'
            yield f'<text x="{_number(x + 32)}" y="{y}" fill="#222222">{text}</text>'
            x += 60 + 8 * len(text)
        if not self._exact:
            yield (
                f'<text x="{_number(x)}" y="{y}" fill="#555555">'
                "the paler, the less of that time</text>"
            )

    # --- a lane ----------------------------------------------------------------------------------
    def _lane(self, lane: Lane, top: int) -> Iterator[str]:
        spans = self._by_lane[lane.domid, lane.vcpu_id]
        base = top + self._pitch - 2
        colour = COLOURS[(lane.domid - 1) % len(COLOURS)]
        size = 13 if self._pitch > 16 else self._pitch - 2
        yield f'<path d="M{LABEL} {base + 0.5}h{WIDTH}" stroke="#bbbbbb"/>'
        yield (
            f'<text x="{LABEL - 10}" y="{base - self._pitch // 5}" text-anchor="end" '
            f'font-size="{size}" fill="#222222">{escape(_cut(lane.label))}</text>'
        )
        yield (
            f'<text x="{LABEL + WIDTH + SHARE - 8}" y="{base - self._pitch // 5}" '
            f'text-anchor="end" font-size="{size}" fill="#222222">{self._share(spans):.1f}%</text>'
        )
        drawn = self._rectangles(spans) if self._exact else self._columns(spans)
        for state, start, end, strength in drawn:
            yield self._box(lane, colour, base, state, start, end, strength)

    def _share(self, spans: Iterable[Span]) -> float:
        ran = sum(
            min(span.end_ns, self._end_ns) - max(span.start_ns, self._start_ns)
            for span in spans
            if span.state is Runstate.RUNNING
        )
        return 100 * ran / (self._end_ns - self._start_ns)

    def _rectangles(self, spans: Sequence[Span]) -> Iterator[tuple[Runstate, int, int, float]]:
        """One for each stretch of a state, neighbours joined: (state, start, end, strength)."""
        before: tuple[Runstate, int, int, float] | None = None
        for span in spans:
            if span.state not in _LOOK:
                continue
            start, end = max(span.start_ns, self._start_ns), min(span.end_ns, self._end_ns)
            if before is not None and before[0] is span.state and before[2] == start:
                before = (span.state, before[1], end, 1.0)
                continue
            if before is not None:
                yield before
            before = (span.state, start, end, 1.0)
        if before is not None:
            yield before

    def _columns(self, spans: Sequence[Span]) -> Iterator[tuple[Runstate, int, int, float]]:
        """The same by columns, with the part of each that was spent so, in tenths."""
        for state in _LOOK:
            parts = self._parts([span for span in spans if span.state is state])
            column = 0
            while column < WIDTH:
                tenths = round(10 * parts[column])
                end = column + 1
                while end < WIDTH and round(10 * parts[end]) == tenths:
                    end += 1
                if tenths:
                    yield state, self._time(column), self._time(end), tenths / 10
                column = end

    def _parts(self, spans: Iterable[Span]) -> list[float]:
        parts = [0.0] * WIDTH
        for span in spans:
            left = max(0.0, self._x(span.start_ns) - LABEL)
            right = min(float(WIDTH), self._x(span.end_ns) - LABEL)
            for column in range(int(left), min(WIDTH, int(right) + 1)):
                parts[column] += max(0.0, min(right, column + 1) - max(left, column))
        return parts

    def _box(
        self,
        lane: Lane,
        colour: str,
        base: int,
        state: Runstate,
        start_ns: int,
        end_ns: int,
        strength: float,
    ) -> str:
        share, opacity = _LOOK[state]
        height = self._pitch * share
        x, y = _number(self._x(start_ns)), _number(base - height)
        width = _number(max((end_ns - start_ns) * self._per_ns, 0.3))
        part = "" if self._exact else f", {100 * strength:.0f}% of it"
        told = (
            f"{lane.label} (d{lane.domid}v{lane.vcpu_id}) {_TEXT[state]}: "
            f"{start_ns / 1e6:.3f} to {end_ns / 1e6:.3f} ms{part}"
        )
        return (
            f'<rect x="{x}" y="{y}" width="{width}" height="{_number(height)}" fill="{colour}" '
            f'fill-opacity="{_number(opacity * strength)}"><title>{escape(told)}</title></rect>'
        )

    @property
    def _per_ns(self) -> float:
        return WIDTH / (self._end_ns - self._start_ns)

    def _x(self, time_ns: int) -> float:
        return LABEL + (time_ns - self._start_ns) * self._per_ns

    def _time(self, column: int) -> int:
        return self._start_ns + (self._end_ns - self._start_ns) * column // WIDTH


def _number(value: float) -> str:
    """As short as it can be: two places."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _cut(label: str) -> str:
    return label if len(label) <= 20 else label[:19] + "…"
