"""A scenario: which domains a machine has, what is said to them, and how each must end.

Written in TOML, so that a rule about a guest can be stated by somebody who knows the guest and not
this code:

    summary = "two guests, one of each width, do not notice each other"

    [[domains]]
    name = "left"
    kernel = "hello"            # a built-in guest, a file beside the scenario, or deb:PACKAGE/FILE
    width = "x86_32"
    ends = "pass"

    [[steps]]                   # in order; `domain` may be left out when there is only one
    domain = "left"
    expect = "ring 1"

With `widths = [...]` at the top, the scenario is played once for each of them. All times are
virtual: a scenario gives the same result on every host, however slow.

A key that is not known is refused, because a misspelt expectation would otherwise always be met.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from hypervisor.testing.c_escapes import EscapeError
from hypervisor.testing.script import Expect, RunFor, ScriptError, Send, Step

WIDTHS: Final = ("x86_32", "x86_32p", "x86_64")
ENDS: Final = ("pass", "poweroff", "reboot", "suspend", "crash", "running")
MS: Final = 1_000_000  # nanoseconds

T = TypeVar("T")


class ScenarioError(ValueError):
    """The scenario cannot be understood; the message is one sentence that says where."""


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """One domain of a scenario."""

    name: str
    kernel: str
    width: str | None  # None: the scenario's, or what the image says
    memory_mib: int
    cmdline: str
    privileged: bool
    ends: str  # one of ENDS; "pass" is a poweroff after an own guest's PASS line


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole scenario, as read."""

    summary: str
    path: Path
    machine_mib: int
    seed: int
    time_limit_ns: int  # of virtual time, for all of it
    widths: tuple[str, ...]  # () when it is played once
    markers: tuple[str, ...]  # of pytest
    domains: tuple[DomainSpec, ...]
    steps: tuple[Step, ...]


class Table:
    """A TOML table that must be used up: what nobody took is a mistake."""

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        self._rest = dict(content)
        self._where = where

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value at `key`. Raises ScenarioError when it is missing or of another kind."""
        value = self._rest.pop(key, default)
        if value is None:
            raise ScenarioError(f"{self._where} lacks {key!r}")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ScenarioError(f"{self._where}: {key} = {value!r} is not of type {kind.__name__}")
        return value

    def take_choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.take(key, str, default)
        if value not in choices:
            raise ScenarioError(f"{self._where}: {key} = {value!r} is none of {', '.join(choices)}")
        return value

    def __contains__(self, key: str) -> bool:
        return key in self._rest

    def finish(self) -> None:
        """Raise ScenarioError when something is left that nobody knows."""
        if self._rest:
            raise ScenarioError(f"{self._where}: {next(iter(self._rest))!r} is not known here")


def read_scenario(path: Path) -> Scenario:
    """The scenario in the file. Raises ScenarioError and OSError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{path.name} is not TOML: {error}") from error
    return parse(content, path)


def parse(content: Mapping[str, Any], path: Path) -> Scenario:
    """The scenario that a TOML document describes. Raises ScenarioError."""
    top = Table(content, path.name)
    machine = Table(top.take("machine", dict, {}), f"{path.name}: machine")
    domains = tuple(
        _domain(Table(each, f"{path.name}: domain {number}"))
        for number, each in enumerate(top.take("domains", list), start=1)
    )
    steps = tuple(
        _step(Table(each, f"{path.name}: step {number}"))
        for number, each in enumerate(top.take("steps", list, []), start=1)
    )
    needed_mib = sum(domain.memory_mib for domain in domains)
    scenario = Scenario(
        summary=top.take("summary", str),
        path=path,
        machine_mib=machine.take("memory_mib", int, needed_mib + 16 * (1 + len(domains))),
        seed=machine.take("seed", int, 0),
        time_limit_ns=top.take("time_limit_ms", int, 60_000) * MS,
        widths=tuple(top.take("widths", list, [])),
        markers=tuple(top.take("markers", list, [])),
        domains=domains,
        steps=steps,
    )
    machine.finish()
    top.finish()
    _check(scenario)
    return scenario


def _domain(table: Table) -> DomainSpec:
    kernel = table.take("kernel", str)
    spec = DomainSpec(
        name=table.take("name", str, Path(kernel).stem),
        kernel=kernel,
        width=table.take_choice("width", WIDTHS, "x86_32") if "width" in table else None,
        memory_mib=table.take("memory_mib", int, 16),
        cmdline=table.take("cmdline", str, ""),
        privileged=table.take("privileged", bool, False),
        ends=table.take_choice("ends", ENDS, "running"),
    )
    table.finish()
    return spec


def _step(table: Table) -> Step:
    where = table.take("domain", str, "")
    try:
        step: Step
        if "expect" in table:
            step = Expect.parse(table.take("expect", str), where)
        elif "send" in table:
            step = Send.parse(table.take("send", str), where)
        else:
            step = RunFor(table.take("run_for_ms", int) * MS)
    except (ScriptError, EscapeError) as error:
        raise ScenarioError(str(error)) from error
    table.finish()
    return step


def _check(scenario: Scenario) -> None:
    """What the parts say about each other. Raises ScenarioError."""
    where = scenario.path.name
    names = [domain.name for domain in scenario.domains]
    if not names:
        raise ScenarioError(f"{where} has no domain")
    if len(set(names)) != len(names):
        raise ScenarioError(f"{where}: two domains have the same name")
    for width in scenario.widths:
        if width not in WIDTHS:
            raise ScenarioError(f"{where}: widths: {width!r} is none of {', '.join(WIDTHS)}")
    for step in scenario.steps:
        if not isinstance(step, RunFor) and step.domain and step.domain not in names:
            raise ScenarioError(f"{where}: no domain is called {step.domain!r}")
