"""From a description to a machine with its domains on it: for scenarios, and for `ring1 run`.

Everything is read and checked before the machine is made, and every domain is made before anything
runs: a file that cannot be used has started nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guests import GuestNotBuiltError, built_guests, guest_path
from hypervisor.abi.width import Width
from hypervisor.api import BuildError, DomainHandle, ImageError, Machine, SchedParamsError
from hypervisor.config import DomainSpec, MachineSpec
from hypervisor.testing.debian import debian_file

PACKAGE_FILE: Final = "deb:"  # kernel = "deb:PACKAGE/PATH": a file of a Debian package


class StageError(Exception):
    """A domain cannot be had as it is described; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Cast:
    """A domain's description, and the bytes it names."""

    spec: DomainSpec
    width: Width | None
    kernel: bytes
    ramdisk: bytes | None


def kernel_path(kernel: str, width: str | None, folder: Path) -> Path:
    """Where the kernel is that a description in `folder` names.

    Raises debian.Unavailable, and GuestNotBuiltError.
    """
    if kernel.startswith(PACKAGE_FILE):
        package, _, file = kernel.removeprefix(PACKAGE_FILE).partition("/")
        return debian_file(package, file)
    if (built_in := built_guests().get(kernel)) is not None:
        return guest_path(kernel, width or built_in.widths[0])
    return folder / kernel


def cast(specs: Iterable[DomainSpec], folder: Path, width: str | None = None) -> list[Cast]:
    """The domains with their files read; `width` is for those that name none.

    Raises StageError, and debian.Unavailable for a package that cannot be had.
    """
    read: dict[Path, bytes] = {}  # replicas share what they are made from
    return [_cast_one(spec, folder, spec.width or width, read) for spec in specs]


def _cast_one(spec: DomainSpec, folder: Path, width: str | None, read: dict[Path, bytes]) -> Cast:
    try:
        path = kernel_path(spec.kernel, width, folder)
    except GuestNotBuiltError as error:
        raise StageError(f"domain {spec.name!r}: {error}") from error

    def bytes_of(path: Path, what: str) -> bytes:
        if path not in read:
            try:
                read[path] = path.read_bytes()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise StageError(
                    f"domain {spec.name!r}: cannot read the {what} {str(path)!r}: {reason}"
                ) from error
        return read[path]

    ramdisk = bytes_of(folder / spec.ramdisk, "ramdisk") if spec.ramdisk else None
    chosen = None if width is None else Width(width)
    return Cast(spec, chosen, bytes_of(path, "kernel"), ramdisk)


def make_machine(spec: MachineSpec, memory_mib: int, *, audit: bool = False) -> Machine:
    """An empty machine. Raises StageError when the host cannot have it, or it cannot be."""
    try:
        return Machine(
            memory_mib=memory_mib,
            seed=spec.seed,
            clock=spec.clock,
            ps_per_byte=spec.ps_per_byte,
            scheduler=spec.scheduler,
            ctx_allow_us=spec.ctx_allow_us,
            mcu_us=spec.mcu_us,
            switch_cost_ns=spec.switch_cost_ns,
            audit=audit,
        )
    except SchedParamsError as error:
        raise StageError(f"the machine: {error}") from error
    except (OSError, MemoryError) as error:
        raise StageError(f"this host has no {memory_mib} MiB of memory for a machine") from error


def create(machine: Machine, actor: Cast) -> DomainHandle:
    """The domain. Raises StageError with the reason when it cannot be made."""
    spec = actor.spec
    try:
        return machine.create(
            actor.kernel,
            name=spec.name,
            memory_mib=spec.memory_mib,
            cmdline=spec.cmdline,
            ramdisk=actor.ramdisk,
            width=actor.width,
            privileged=spec.privileged,
            nr_vcpus=spec.nr_vcpus,
            sched=spec.sched,
            start_ns=spec.start_ns,
            policies=spec.policies,
        )
    except (ImageError, BuildError) as error:
        raise StageError(f"domain {spec.name!r} cannot be made: {error}") from error
