"""pytest collects scenarios: every `*.toml` in a folder called `scenarios` is a test.

Put `pytest_plugins = ["hypervisor.testing.plugin"]` into the top conftest.py. A scenario with
`widths` is one test for each of them; one that needs a Debian package carries the mark `real`, and
is skipped where the package cannot be had, but fails when CI is set: there a skip would hide that
nothing was tested.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypervisor.testing.scenario import Scenario, ScenarioError, read_scenario


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".toml" and file_path.parent.name == "scenarios":
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


class ScenarioFile(pytest.File):
    """One scenario's file."""

    def collect(self) -> Iterator[ScenarioItem]:
        try:
            scenario = read_scenario(self.path)
        except ScenarioError as error:
            raise self.CollectError(str(error)) from error
        for width in scenario.widths or (None,):
            name = self.path.stem if width is None else f"{self.path.stem}[{width}]"
            yield ScenarioItem.from_parent(self, name=name, scenario=scenario, width=width)


class ScenarioItem(pytest.Item):
    """One playing of a scenario."""

    def __init__(self, *, scenario: Scenario, width: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scenario = scenario
        self.width = width
        for mark in scenario.markers:
            self.add_marker(mark)
        if any(each.spec.kernel.startswith("deb:") for each in scenario.domains):
            self.add_marker("real")

    def runtest(self) -> None:
        from hypervisor.testing.debian import Unavailable
        from hypervisor.testing.play import play

        try:
            play(self.scenario, self.width)
        except Unavailable as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from hypervisor.testing.play import ScenarioFailure

        if isinstance(excinfo.value, ScenarioFailure):
            return f"{self.scenario.summary}\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name
