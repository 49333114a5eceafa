"""The commands of `ring1 step`: move the guest, say what happened, show where it stands.

One method for each command, found in a table that is also the help. What happened is told by the
machine's own entries, the same that a trace holds; nothing is guessed from the code.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import click

from cli.console_output import ConsoleOutput
from cli.run import run
from cli.verdict import how_it_ended
from cli.watch import Watch
from hypervisor.api import DomainHandle, Machine, RunEnd, VcpuHandle
from hypervisor.debug.disassembly import INSTRUCTION_MAX, disassemble
from hypervisor.probes import Entry
from hypervisor.trace.names import entry_name, shown_arguments

TRAPS: Final = frozenset({"exception", "interrupt"})
LISTING_LINES: Final = 8
DUMP_BYTES: Final = 64
PAGE_BYTES: Final = 4096


class CommandError(Exception):
    """The line cannot be obeyed; the message is one sentence."""


class Command(NamedTuple):
    """A command's usage, what it does, and the method that does it."""

    usage: str
    summary: str
    run: Callable[[Stepper, Sequence[str]], None]


@dataclass(slots=True)
class Stepper:
    """One domain at the prompt."""

    machine: Machine
    domain: DomainHandle
    output: ConsoleOutput
    last: Entry | None = None  # the newest entry
    leaving: bool = False
    repeated: list[str] = field(default_factory=lambda: ["s"])  # what an empty line means

    def __post_init__(self) -> None:
        self.machine.on_entry.append(self._note)

    def _note(self, entry: Entry) -> None:
        self.last = entry

    def obey(self, line: str) -> bool:
        """Carry out one line, an empty one like the one before it; whether another is wanted."""
        try:
            words = shlex.split(line) or self.repeated
            command = COMMANDS.get(words[0])
            if command is None:
                raise CommandError(f"no command is called '{words[0]}'; `help` lists them")
            self.repeated = words
            command.run(self, words[1:])
        except (CommandError, ValueError) as error:
            self._print(f"{error}")
        return not self.leaving

    # moving

    def step(self, args: Sequence[str]) -> None:
        """Execute instructions, and tell the entries that they caused."""
        for _ in range(number(args, default=1)):
            if self._vcpu_or_none() is None:
                break
            entry = self.machine.step()
            if entry is not None:
                self._print(describe(entry))
        self.show_position()

    def to_hypercall(self, args: Sequence[str]) -> None:
        self._run_to(lambda entry: entry.kind == "hypercall")

    def to_trap(self, args: Sequence[str]) -> None:
        self._run_to(lambda entry: entry.kind in TRAPS)

    def to_entry(self, args: Sequence[str]) -> None:
        self._run_to(lambda entry: True)

    def proceed(self, args: Sequence[str]) -> None:
        self._run_to(lambda entry: False)

    def _run_to(self, wanted: Callable[[Entry], bool]) -> None:
        with Watch(self.machine.interrupt, None) as watch:
            end = run(self.machine, until_entry=wanted)
            while end is RunEnd.INTERRUPTED and not watch.ended:
                end = run(self.machine, until_entry=wanted)
        self.output.fresh_line()
        if end is RunEnd.PREDICATE and self.last is not None:
            self._print(describe(self.last))
        elif end is RunEnd.BLOCKED_FOREVER:
            self._print(f"{self.domain.name} is blocked, and nothing is left that could wake it")
        self.show_position()

    # looking

    def show_position(self) -> None:
        """Where the guest stands: time, vCPU, and the instruction that is next."""
        vcpu = self._vcpu_or_none()
        if vcpu is None:
            _, what = how_it_ended(self.domain) or (None, "is blocked: no instruction is next")
            self._print(f"{self.domain.name} {what}")
            return
        where = f"{self.machine.now_ns:>12} ns  d{self.domain.domid}v{vcpu.vcpu_id} cpl{vcpu.cpl}"
        code = read_up_to(vcpu, vcpu.rip, INSTRUCTION_MAX)
        lines = disassemble(code, vcpu.rip, vcpu.bits, 1)
        text = lines[0].text if lines else "(not mapped)"
        self._print(f"{where}  {vcpu.rip:#0{hex_width(vcpu)}x}  {text}")

    def registers(self, args: Sequence[str]) -> None:
        values = self._vcpu().registers()
        wide = max(len(name) for name in values)
        digits = 16 if self._vcpu().bits == 64 else 8
        cells = [f"{name:>{wide}} {value:0{digits}x}" for name, value in values.items()]
        per_line = 4
        for start in range(0, len(cells), per_line):
            self._print("  ".join(cells[start : start + per_line]))

    def listing(self, args: Sequence[str]) -> None:
        vcpu = self._vcpu()
        vaddr = number(args, default=vcpu.rip)
        nr_lines = number(args[1:], default=LISTING_LINES)
        code = read_up_to(vcpu, vaddr, nr_lines * INSTRUCTION_MAX)
        if not code:
            raise CommandError(f"vaddr {vaddr:#x} is not mapped")
        for line in disassemble(code, vaddr, vcpu.bits, nr_lines):
            mark = "->" if line.vaddr == vcpu.rip else "  "
            place = f"{line.vaddr:#0{hex_width(vcpu)}x}"
            self._print(f"{mark} {place}  {line.code.hex():30}  {line.text}")

    def dump(self, args: Sequence[str]) -> None:
        vcpu = self._vcpu()
        if not args:
            raise CommandError("x wants an address, such as: x 0xc0001000 64")
        vaddr, size = number(args, default=0), number(args[1:], default=DUMP_BYTES)
        data = read_up_to(vcpu, vaddr, size)
        if not data:
            raise CommandError(f"vaddr {vaddr:#x} is not mapped")
        for offset in range(0, len(data), 16):
            row = data[offset : offset + 16]
            text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
            self._print(f"{vaddr + offset:#0{hex_width(vcpu)}x}  {row.hex(' '):47}  {text}")

    def look(self, word: str, args: Sequence[str]) -> None:
        """One of the words for looking at memory (cli.looking)."""
        from cli.looking import Looker, LookError, checked  # numpy takes a tenth of a second

        try:
            for line in Looker.at(self.domain).show(checked([word, *args])).lines:
                self._print(line)
        except LookError as error:
            raise CommandError(str(error)) from None

    def help(self, args: Sequence[str]) -> None:
        for command in COMMANDS.values():
            self._print(f"  {command.usage:16} {command.summary}")

    def leave(self, args: Sequence[str]) -> None:
        self.leaving = True

    def _vcpu_or_none(self) -> VcpuHandle | None:
        return self.machine.current

    def _vcpu(self) -> VcpuHandle:
        vcpu = self._vcpu_or_none()
        if vcpu is None:
            raise CommandError(f"{self.domain.name} has no vCPU that could run now")
        return vcpu

    def _print(self, text: str) -> None:
        self.output.fresh_line()
        click.echo(text)


COMMANDS: Final = {
    "s": Command(
        "s [N]",
        "execute one instruction, or N; an empty line repeats the last command",
        Stepper.step,
    ),
    "h": Command("h", "run to the next hypercall", Stepper.to_hypercall),
    "t": Command("t", "run to the next trap (exception or int n)", Stepper.to_trap),
    "e": Command("e", "run to the next entry into the hypervisor, of any kind", Stepper.to_entry),
    "c": Command("c", "run to the end; ^C stops", Stepper.proceed),
    "r": Command("r", "show the registers", Stepper.registers),
    "d": Command("d [ADDR [N]]", "disassemble N instructions", Stepper.listing),
    "x": Command("x ADDR [N]", "dump N bytes of the guest's memory", Stepper.dump),
    "walk": Command(
        "walk ADDR [user]",
        "show the page tables' entries for ADDR, a symbol or a register",
        lambda stepper, args: stepper.look("walk", args),
    ),
    "frame": Command(
        "frame MFN",
        "show a machine frame, its counts and who has them",
        lambda stepper, args: stepper.look("frame", args),
    ),
    "frames": Command(
        "frames [TYPE]",
        "count the domain's frames by type; list those of one type, or all",
        lambda stepper, args: stepper.look("frames", args),
    ),
    "tables": Command(
        "tables", "list the page tables", lambda stepper, args: stepper.look("tables", args)
    ),
    "p2m": Command(
        "p2m [PFN]",
        "compare pseudo-physical with machine frames",
        lambda stepper, args: stepper.look("p2m", args),
    ),
    "help": Command("help", "this list", Stepper.help),
    "q": Command("q", "leave; the domain is destroyed", Stepper.leave),
}


def number(args: Sequence[str], *, default: int) -> int:
    """The first argument as a number, decimal or 0x. Raises CommandError for another word."""
    if not args:
        return default
    try:
        value = int(args[0], 0)
    except ValueError as error:
        raise CommandError(f"{args[0]!r} is not a number") from error
    if value < 0:
        raise CommandError(f"{args[0]} is negative")
    return value


def describe(entry: Entry) -> str:
    """An entry as one line: what the guest wanted, and what it got."""
    args = ", ".join(shown_arguments(entry))
    text = f"{entry.kind}: {entry_name(entry.kind, entry.number)}({args})"
    if entry.result is not None:
        text += f" = {entry.result:#x}"
    return f"{text}  [{entry.why}]" if entry.why else text


def hex_width(vcpu: VcpuHandle) -> int:
    """Characters of an address, `0x` included."""
    return 18 if vcpu.bits == 64 else 10


def read_up_to(vcpu: VcpuHandle, vaddr: int, size: int) -> bytes:
    """At most `size` bytes at `vaddr`: as far as pages are mapped."""
    data = bytearray()
    while len(data) < size:
        at = vaddr + len(data)
        chunk = min(size - len(data), PAGE_BYTES - at % PAGE_BYTES)
        try:
            data += vcpu.read(at, chunk)
        except LookupError:
            break
    return bytes(data)
