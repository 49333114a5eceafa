"""Fetching Debian's files: from the cache, by apt, or not at all with a reason."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from hypervisor.testing.debian import Unavailable, debian_file, debian_tree, package_version

APT_GET = """#!/bin/sh
echo "$@" >> "$FAKE_LOG"
test -n "$FAKE_FAILURE" && { echo "E: $FAKE_FAILURE" >&2; exit 100; }
echo archive > some_1.0_amd64.deb
"""
DPKG_DEB = """#!/bin/sh
case "$1" in
-x) mkdir -p "$3/usr/lib"; echo content > "$3/usr/lib/file" ;;
-f) echo 1.0-2 ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache and stand-ins for apt-get and dpkg-deb."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in {"apt-get": APT_GET, "dpkg-deb": DPKG_DEB}.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAKE_FAILURE", "")
    return tmp_path


def test_file_is_fetched_once(machine: Path) -> None:
    for _ in range(2):
        assert debian_file("some", "usr/lib/file").read_text() == "content\n"
    assert (machine / "log").read_text() == "download some\n"
    assert package_version("some") == "1.0-2"


def test_nothing_but_the_package_stays_in_the_cache(machine: Path) -> None:
    root = debian_tree("some")
    assert root == machine / "cache" / "ring1" / "debian" / "some"
    assert sorted(p.name for p in root.parent.iterdir()) == [".lock", "some"]


def test_several_processes_fetch_once(machine: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        roots = pool.map(debian_tree, ["some"] * 3)
    assert len(set(roots)) == 1
    assert (machine / "log").read_text() == "download some\n"


def test_missing_lists_are_fetched_without_root(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILURE", "Unable to locate package some")
    with pytest.raises(
        Unavailable,
        match=r"^Debian's package some cannot be fetched: "
        r"apt-get update: E: Unable to locate package some$",
    ):
        debian_file("some", "usr/lib/file")
    first, second = (machine / "log").read_text().splitlines()
    assert first == "download some"
    assert second.startswith("-o Dir::State=")
    assert second.endswith(" update")


def test_file_that_the_package_lacks_is_unavailable(machine: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"^Debian's package some \(1.0-2\) has no usr/lib/other$"
    ):
        debian_file("some", "usr/lib/other")


@pytest.mark.parametrize("tool", ["apt-get", "dpkg-deb"])
def test_machine_without_apt_says_so(
    machine: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    (machine / "bin" / tool).unlink()
    monkeypatch.setenv("PATH", str(machine / "bin"))
    with pytest.raises(
        Unavailable, match=rf"^Debian's package some is not cached, and {tool} is not here$"
    ):
        debian_file("some", "usr/lib/file")
