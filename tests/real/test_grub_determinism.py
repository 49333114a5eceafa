"""A session with PV-GRUB is the same, entry by entry, however the machine is disturbed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.support.sessions import DISTURBANCES, Exchange, Recording, Script, first_difference

SESSION = (
    Exchange(b"grub> ", b"echo one two\n"),
    Exchange(b"\rone two", b"set pager=1\n"),
    Exchange(b"grub> "),
)


@cache
def reference(kernel: Path) -> Recording:
    """The session as it is when nothing disturbs it."""
    return Script(kernel, SESSION, memory_mib=64).record()


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize("kernel", ["grub_32", "grub_64"])
def test_a_disturbed_session_is_the_same(
    kernel: str, disturbance: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(kernel)
    disturb, machine = DISTURBANCES[disturbance]
    expected = reference(path)
    found = Script(path, SESSION, memory_mib=64).record(disturb, expected, **machine)
    assert first_difference(expected, found) == ""
    assert (found.digest, found.now_ns) == (expected.digest, expected.now_ns)
    if disturb is not DISTURBANCES["again"][0]:
        assert found.disturbed


@pytest.mark.parametrize("kernel", ["grub_32", "grub_64"])
def test_an_untraced_session_is_the_same(kernel: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(kernel)
    expected = reference(path)
    found = Script(path, SESSION, memory_mib=64).record(traced=False)
    assert (found.digest, found.now_ns) == (expected.digest, expected.now_ns)


@pytest.mark.parametrize("kernel", ["grub_32", "grub_64"])
def test_a_session_under_a_storm_is_the_same_while_it_is_audited(
    kernel: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(kernel)
    expected = reference(path)
    disturb, machine = DISTURBANCES["stop storm"]
    found = Script(path, SESSION, memory_mib=64).record(disturb, expected, audit=True, **machine)
    assert first_difference(expected, found) == ""
    assert (found.digest, found.now_ns) == (expected.digest, expected.now_ns)
    assert found.disturbed
