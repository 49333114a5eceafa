"""The attacks of `guests/attacks/`: what their opening comments say, and a machine for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from typing import Final

from guests import CHECK_LINE, REPORT_FAIL, WIDTHS, build, guest_path
from hypervisor.api import DomainHandle, Machine, RunEnd
from hypervisor.machine.calls import CallLog
from hypervisor.machine.state import CpuState

FOLDER: Final = build.HERE / "attacks"
MACHINE_MIB: Final = 40
NEIGHBOUR_MIB: Final = 8
ATTACKER_MIB: Final = 12
SECRET: Final = 0x5EC2_E700
NO_CALLS: Final = CallLog()
_SECOND: Final = 10**9
_FIELD: Final = re.compile(
    r"^ \* (Way out|Rule|Check|Widths)[^:\n]*: (.*(?:\n \* (?!\w+: ).*)*)", re.M
)


@dataclass(frozen=True, slots=True)
class Attack:
    """One file, as it opens."""

    name: str
    way_out: str
    rule: str
    checks: tuple[str, ...]
    widths: tuple[str, ...]


@cache
def attacks() -> tuple[Attack, ...]:
    """All of them, by name."""
    texts = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.c"))}
    return tuple(_read(name, text) for name, text in texts.items() if "\nATTACK(" in text)


def _read(name: str, text: str) -> Attack:
    fields: dict[str, list[str]] = {}
    for field, value in _FIELD.findall(text[: text.index("*/")]):
        fields.setdefault(field, []).append(" ".join(value.replace("\n *", " ").split()))
    (way_out,), (rule,) = fields["Way out"], fields["Rule"]
    widths = tuple(fields["Widths"][0].split()) if "Widths" in fields else WIDTHS
    return Attack(name, way_out, rule, tuple(fields["Check"]), widths)


class Scene:
    """A machine with a neighbour that is ready, and then attackers."""

    def __init__(self, machine: Machine, width: str) -> None:
        self.machine = machine
        self.width = width
        self.neighbour = machine.create(
            guest_path("attacks", width),
            name="neighbour",
            memory_mib=NEIGHBOUR_MIB,
            cmdline="role=neighbour",
        )
        console = self.neighbour.console
        machine.run(until=lambda: b"ready" in console.output)

    def attack(self, name: str, width: str | None = None) -> DomainHandle:
        """An attacker that knows whom to attack, run until it says what came of it, or ends."""
        dom = self.neighbour._dom
        frame = next(mfn for mfn in dom.p2m if self.machine.vmm.memory.u32[mfn << 10] == SECRET)
        root = dom.vcpus[0].root_mfn
        attacker = self.machine.create(
            guest_path("attacks", width or self.width),
            name=f"attacker {name}",
            memory_mib=ATTACKER_MIB,
            cmdline=f"only={name} frame={frame} root={root} domid={dom.domid}",
        )
        output = attacker.console.output
        end = self.machine.run(
            until=lambda: b"\nring1: " in output or attacker.crash_report is not None,
            time_limit_ns=self.machine.now_ns + 20 * _SECOND,
        )
        assert end is not RunEnd.TIME_LIMIT, output
        return attacker

    def pause_neighbour(self) -> None:
        """It stands still, and its time on the CPU is booked."""
        self.neighbour.pause()
        self.machine.run(time_limit_ns=self.machine.now_ns)

    def neighbours_state(self) -> dict[str, object]:
        """All of the neighbour that an attacker could have changed."""
        vmm, dom = self.machine.vmm, self.neighbour._dom
        frames = vmm.host.frames
        owned = frames.owned_by(dom.domid)
        return {
            "memory": [(mfn, sha256(vmm.memory.frame(mfn)).hexdigest()) for mfn in owned],
            "rows": [
                (frames.type[mfn], frames.flags[mfn], frames.type_count[mfn], frames.ref_count[mfn])
                for mfn in owned
            ],
            "numbers": [vmm.host.m2p.get(mfn) for mfn in owned],
            "vcpus": [repr(replace(vcpu, saved=b"", calls=NO_CALLS)) for vcpu in dom.vcpus],
            "registers": [vmm.inspect(vcpu, CpuState.architectural) for vcpu in dom.vcpus],
            "ports": repr(vmm.host.events.tables[dom.domid].channels),
            "console": bytes(self.neighbour.console.output),
            "state": (dom.state, dom.shutdown_reason, dom.paused),
        }


@contextmanager
def scene(width: str) -> Iterator[Scene]:
    """A machine on which a neighbour is ready."""
    with Machine(memory_mib=MACHINE_MIB) as machine:
        yield Scene(machine, width)


def came_of_it(attacker: DomainHandle) -> tuple[str, str]:
    """The verdict of an attacker, `ok` or `FAIL`, and what it saw; `crash` if Xen ended it."""
    if attacker.crash_report is not None:
        return "crash", attacker.crash_report
    output = attacker.console.output.decode()
    if (line := CHECK_LINE.search(output)) is not None:
        return line["verdict"], line["seen"]
    failed = REPORT_FAIL.search(output)  # a trap that it did not expect
    assert failed is not None, output
    return "FAIL", failed["why"]
