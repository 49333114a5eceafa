"""What a machine and its domains are, in every file that describes some.

The keys, their defaults and their limits stand here and nowhere else; docs/running.md lists them.
What is on the other side, `api.Machine`, is given the same words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, cast

from hypervisor.abi.width import Width
from hypervisor.abi.xen import MAX_GUEST_CMDLINE, XEN_LEGACY_MAX_VCPUS
from hypervisor.config.tables import Table
from hypervisor.control.lifecycle import Action, Policies
from hypervisor.sched.params import (
    DEFAULT_CTX_ALLOW_NS,
    DEFAULT_MCU_NS,
    SchedParams,
    SchedParamsError,
)
from hypervisor.sched.policies import DEFAULT_POLICY, POLICIES

WIDTHS: Final = tuple(width.value for width in Width)
ACTIONS: Final = tuple(action.value for action in Action)
MAX_MIB: Final = 1 << 20  # a TiB: beyond any host this runs on
MAX_DOMAINS: Final = 1000
OVERHEAD_MIB: Final = 16  # machine memory beyond the domains': Xen's own frames
OVERHEAD_SHARE: Final = 256  # and a 256th, and a little for each domain's tables and shared pages
OVERHEAD_PER_DOMAIN_MIB: Final = 1


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """The machine: `[machine]`."""

    memory_mib: int | None = None  # None: what its domains need
    seed: int = 0
    clock: Literal["virtual", "host"] = "virtual"
    ps_per_byte: int = 250  # of guest code
    scheduler: str = DEFAULT_POLICY
    ctx_allow_us: int = DEFAULT_CTX_ALLOW_NS // 1000
    mcu_us: int = DEFAULT_MCU_NS // 1000
    switch_cost_ns: int = 0


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """A domain: `[[domains]]`."""

    name: str
    kernel: str  # a built-in guest's name, a file's, or deb:PACKAGE/FILE
    width: str | None = None  # None: what the image says
    memory_mib: int = 16
    nr_vcpus: int = 1
    cmdline: str = ""
    ramdisk: str = ""  # a file's name, "" for none
    privileged: bool = False
    sched: SchedParams = SchedParams()  # noqa: RUF009 - it cannot be changed
    start_ns: int = 0
    policies: Policies = Policies()  # noqa: RUF009 - likewise


def parse_machine(table: Table) -> MachineSpec:
    """The machine in a table, which is used up. Raises ConfigError."""
    spec = MachineSpec(
        memory_mib=(
            table.take_number("memory_mib", 0, 2, MAX_MIB) if "memory_mib" in table else None
        ),
        seed=table.take_number("seed", 0, 0, 1 << 62),
        clock=cast(
            Literal["virtual", "host"],
            table.take_choice("clock", ("virtual", "host"), "virtual"),
        ),
        ps_per_byte=table.take_number("ps_per_byte", 250, 1, 10**9),
        scheduler=table.take_choice("scheduler", tuple(POLICIES), DEFAULT_POLICY),
        ctx_allow_us=table.take_number("ctx_allow_us", DEFAULT_CTX_ALLOW_NS // 1000, 1, 10**7),
        mcu_us=table.take_number("mcu_us", DEFAULT_MCU_NS // 1000, 1, 10**7),
        switch_cost_ns=table.take_number("switch_cost_ns", 0, 0, 10**9),
    )
    table.finish()
    return spec


def parse_domain(table: Table) -> DomainSpec:
    """The domain in a table, which may have more in it: see `Table.finish`. Raises ConfigError."""
    kernel = table.take("kernel", str)
    if not kernel:
        raise table.error("kernel", "kernel = '' names no kernel")
    name = table.take("name", str, Path(kernel).stem)
    if not name or not name.isprintable():
        raise table.error("name", f"name = {name!r} is nothing to call a domain")
    cmdline = table.take("cmdline", str, "")
    if len(cmdline.encode()) >= MAX_GUEST_CMDLINE:
        raise table.error("cmdline", f"cmdline has {len(cmdline.encode())} bytes, at most 1023 fit")
    return DomainSpec(
        name=name,
        kernel=kernel,
        width=table.take_choice("width", WIDTHS, WIDTHS[0]) if "width" in table else None,
        memory_mib=table.take_number("memory_mib", 16, 1, MAX_MIB),
        nr_vcpus=table.take_number("vcpus", 1, 1, XEN_LEGACY_MAX_VCPUS),
        cmdline=cmdline,
        ramdisk=table.take("ramdisk", str, ""),
        privileged=table.take("privileged", bool, False),
        sched=_parse_sched(table),
        start_ns=table.take_ms("start_ms"),
        policies=Policies(
            *(
                Action(table.take_choice(key, ACTIONS, Action.PRESERVE.value))
                for key in ("on_poweroff", "on_reboot", "on_crash")
            )
        ),
    )


def _parse_sched(table: Table) -> SchedParams:
    try:
        return SchedParams(
            weight=table.take("weight", int, 1),
            warp=table.take("warp", bool, False),
            warp_value_ns=table.take_ms("warp_value_ms"),
            warp_limit_ns=table.take_ms("warp_limit_ms"),
            unwarp_ns=table.take_ms("unwarp_ms"),
        )
    except SchedParamsError as error:
        raise table.error(str(error).split()[0], str(error)) from error


def parse_domains(tables: Sequence[Table]) -> Iterator[DomainSpec]:
    """The domains of some tables; one with a `count` is so many, with numbered names.

    Raises ConfigError.
    """
    for table in tables:
        count = table.take_number("count", 1, 1, MAX_DOMAINS)
        spec = parse_domain(table)
        table.finish()
        if count == 1:
            yield spec
        else:
            for number in range(1, count + 1):
                yield replace(spec, name=f"{spec.name}{number}")


def memory_for(machine: MachineSpec, domains: Sequence[DomainSpec]) -> int:
    """How many MiB the machine has: as it says, or with room for its domains."""
    if machine.memory_mib is not None:
        return machine.memory_mib
    needed = sum(domain.memory_mib for domain in domains)
    per_domain = OVERHEAD_PER_DOMAIN_MIB * len(domains)
    return needed + OVERHEAD_MIB + per_domain + needed // OVERHEAD_SHARE
