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

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypervisor.config import ConfigError, Document, DomainSpec, MachineSpec, Table
from hypervisor.config.machine import WIDTHS, memory_for, parse_domain, parse_machine
from hypervisor.config.run import require_domains
from hypervisor.config.tables import read_document
from hypervisor.testing.c_escapes import EscapeError
from hypervisor.testing.script import Expect, RunFor, ScriptError, Send, Step

ENDS: Final = ("pass", "poweroff", "reboot", "suspend", "crash", "running")
MS: Final = 1_000_000  # nanoseconds

ScenarioError = ConfigError  # one sentence that says where


@dataclass(frozen=True, slots=True)
class ScenarioDomain:
    """One domain of a scenario: what it is, and what must become of it."""

    spec: DomainSpec
    ends: str  # one of ENDS; "pass" is a poweroff after an own guest's PASS line


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole scenario, as read."""

    summary: str
    path: Path
    machine: MachineSpec
    time_limit_ns: int  # of virtual time, for all of it
    widths: tuple[str, ...]  # () when it is played once
    markers: tuple[str, ...]  # of pytest
    domains: tuple[ScenarioDomain, ...]
    steps: tuple[Step, ...]

    @property
    def memory_mib(self) -> int:
        """The machine's memory."""
        return memory_for(self.machine, [each.spec for each in self.domains])


def read_scenario(path: Path) -> Scenario:
    """The scenario in the file. Raises ScenarioError and OSError."""
    return parse(read_document(path), path)


def parse(document: Document, path: Path) -> Scenario:
    """The scenario that a TOML document describes. Raises ScenarioError."""
    top = document.top
    scenario = Scenario(
        summary=top.take("summary", str),
        path=path,
        machine=parse_machine(top.take_table("machine")),
        domains=tuple(_domain(each) for each in top.take_tables("domains")),
        steps=tuple(_step(each) for each in top.take_tables("steps")),
        time_limit_ns=top.take_ms("time_limit_ms", 60_000),
        widths=tuple(top.take("widths", list, [])),
        markers=tuple(top.take("markers", list, [])),
    )
    top.finish()
    require_domains(document.name, tuple(each.spec for each in scenario.domains))
    _check(scenario)
    return scenario


def _domain(table: Table) -> ScenarioDomain:
    domain = ScenarioDomain(parse_domain(table), table.take_choice("ends", ENDS, "running"))
    table.finish()
    return domain


def _step(table: Table) -> Step:
    where = table.take("domain", str, "")
    try:
        step: Step
        if "expect" in table:
            step = Expect.parse(table.take("expect", str), where)
        elif "send" in table:
            step = Send.parse(table.take("send", str), where)
        else:
            step = RunFor(table.take_ms("run_for_ms", None))
    except (ScriptError, EscapeError) as error:
        raise table.error("", str(error)) from error
    table.finish()
    return step


def _check(scenario: Scenario) -> None:
    """What the parts say about each other. Raises ScenarioError."""
    where = scenario.path.name
    names = {each.spec.name for each in scenario.domains}
    for width in scenario.widths:
        if width not in WIDTHS:
            raise ScenarioError(f"{where}: widths: {width!r} is none of {', '.join(WIDTHS)}")
    for step in scenario.steps:
        if not isinstance(step, RunFor) and step.domain and step.domain not in names:
            raise ScenarioError(f"{where}: no domain is called {step.domain!r}")
