"""The same guest does the same, entry by entry and bit by bit, however its run is disturbed."""

from __future__ import annotations

from functools import cache

import pytest

from guests import WIDTHS, guest_path
from tests.support.sessions import DISTURBANCES, Recording, Script, first_difference

TICKS = "ticks=20 period_ms=1"


@cache
def script(name: str) -> Script:
    """What is run: traps in each width, and three domains that share the CPU."""
    if name == "neighbours":
        others = (guest_path("ticker", "x86_64"), guest_path("ticker", "x86_32"))
        return Script(guest_path("ticker", "x86_32p"), cmdline=TICKS, others=others)
    return Script(guest_path("traps", name))


@cache
def reference(name: str) -> Recording:
    """The session as it is when nothing disturbs it."""
    return script(name).record()


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize("name", [*WIDTHS, "neighbours"])
def test_a_disturbed_run_is_the_same(name: str, disturbance: str) -> None:
    if name == "neighbours" and disturbance == "Python counter":
        pytest.skip("half a minute of busy waiting, with nothing in it that traps has not")
    disturb, machine = DISTURBANCES[disturbance]
    expected = reference(name)
    found = script(name).record(disturb, expected, **machine)
    assert first_difference(expected, found) == ""
    assert (found.digest, found.now_ns) == (expected.digest, expected.now_ns)
    if disturb is not DISTURBANCES["again"][0]:
        assert found.disturbed


@pytest.mark.parametrize("name", [*WIDTHS, "neighbours"])
def test_an_untraced_run_is_the_same(name: str) -> None:
    expected = reference(name)
    found = script(name).record(traced=False)
    assert (found.digest, found.now_ns) == (expected.digest, expected.now_ns)


def test_another_seed_scatters_frames_otherwise() -> None:
    assert script("x86_64").record(seed=7).digest != reference("x86_64").digest
