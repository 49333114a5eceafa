"""The file that `ring1 run` plays: a machine, its domains, and how long.

[machine]
scheduler = "bvt"

[[domains]]
name = "heavy"
kernel = "spinner"
weight = 3

[run]
until_ms = 2000
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hypervisor.config.machine import (
    MAX_DOMAINS,
    DomainSpec,
    MachineSpec,
    memory_for,
    parse_domains,
    parse_machine,
)
from hypervisor.config.tables import ConfigError, Document, read_document


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A whole file."""

    title: str  # "" for none
    machine: MachineSpec
    domains: tuple[DomainSpec, ...]
    until_ns: int | None  # virtual time; None: until all have ended

    @property
    def memory_mib(self) -> int:
        """The machine's memory."""
        return memory_for(self.machine, self.domains)


def read_run(path: Path) -> RunSpec:
    """The run in a file. Raises ConfigError and OSError."""
    return parse_run(read_document(path))


def parse_run(document: Document) -> RunSpec:
    """The run in a document. Raises ConfigError."""
    top = document.top
    run = top.take_table("run")
    spec = RunSpec(
        title=top.take("title", str, ""),
        machine=parse_machine(top.take_table("machine")),
        domains=tuple(parse_domains(top.take_tables("domains"))),
        until_ns=run.take_ms("until_ms") if "until_ms" in run else None,
    )
    run.finish()
    top.finish()
    require_domains(document.name, spec.domains)
    return spec


def require_domains(name: str, domains: tuple[DomainSpec, ...]) -> None:
    """Raise ConfigError unless the file `name` has domains, and each has a name of its own."""
    if not domains:
        raise ConfigError(f"{name} has no domain")
    if len(domains) > MAX_DOMAINS:
        raise ConfigError(f"{name} has {len(domains)} domains, at most {MAX_DOMAINS} are possible")
    seen: set[str] = set()
    for domain in domains:
        if domain.name in seen:
            raise ConfigError(f"{name}: two domains have the same name, {domain.name!r}")
        seen.add(domain.name)
