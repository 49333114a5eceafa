"""The words for looking at a domain's memory: the same in `ring1 inspect` and `ring1 step`.

    walk ADDR [user] [vN]  the page tables' entries for an address, and the frames on the way
    frame MFN              a frame: owner, type, counts, and everything that uses it
    frames [TYPE]          how many frames of each type there are; those of one type, or `all`
    tables                 every page table
    p2m [PFN]              the P2M against the M2P

An address is a number, a symbol of the kernel's image, `symbol+number`, or a register's name.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import click

from cli.exits import Refusal
from cli.inspect_text import (
    frame_line,
    frame_lines,
    p2m_lines,
    summary_lines,
    table_lines,
    walk_lines,
)
from hypervisor.api import DomainHandle
from hypervisor.debug.inspection import Inspection
from hypervisor.mm.frames import FrameType

REGISTERS: Final = ("rip", "rsp", "rbp", "cr2")


class LookError(Exception):
    """What was asked for cannot be shown; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The answer as plain data, and as lines."""

    data: Any
    lines: Sequence[str]


class Look(NamedTuple):
    """A word's usage, what it shows, and how many arguments it may have."""

    usage: str
    summary: str
    arguments: range
    show: Callable[[Looker, Sequence[str]], Seen]


@dataclass(slots=True)
class Looker:
    """One domain that stands still. Make another when it has moved."""

    domain: DomainHandle
    inspection: Inspection

    @classmethod
    def at(cls, domain: DomainHandle) -> Looker:
        """Raises LookError when nothing is left to look at."""
        try:
            return cls(domain, domain.inspect())
        except LookupError as error:
            raise LookError(str(error)) from None

    def show(self, words: Sequence[str]) -> Seen:
        """Obey a word and its arguments. Raises LookError."""
        try:
            return LOOKS[words[0]].show(self, words[1:])
        except ValueError as error:
            raise LookError(str(error)) from None

    # --- the words -----------------------------------------------------------------------------
    def walk(self, args: Sequence[str]) -> Seen:
        vaddr = self.address(args[0])
        vcpu_id, is_user = 0, False
        for arg in args[1:]:
            if arg == "user":
                is_user = True
            elif arg[0] == "v":
                vcpu_id = number(arg[1:], "vCPU's number")
            else:
                raise LookError(
                    f"{arg!r} is no set of tables: those are `user` and `v1`, `v2`, ..."
                )
        found = self.inspection.walk(vaddr, vcpu_id=vcpu_id, user=is_user)
        mfns = [level.table.mfn for level in found.levels]
        last = found.levels[-1].names
        mfns += [last.mfn] if last is not None else []
        reports = [self.inspection.frame(mfn) for mfn in dict.fromkeys(mfns)]
        data = asdict(found) | {"frames": [asdict(report) for report in reports]}
        symbol = self.inspection.symbol_at(vaddr) if found.region is None else None
        lines = walk_lines(found, symbol, reports)
        return Seen(data, list(lines))

    def frame(self, args: Sequence[str]) -> Seen:
        report = self.inspection.frame(number(args[0], "frame number"))
        return Seen(asdict(report), list(frame_lines(report)))

    def frames(self, args: Sequence[str]) -> Seen:
        frames = self.inspection.frames()
        if not args:
            lines = list(summary_lines(f"d{self.domain.domid}", frames))
            return Seen([asdict(frame) for frame in frames], lines)
        if args[0] != "all":
            kind = args[0].upper()
            if kind not in FrameType.__members__:
                known = ", ".join(FrameType.__members__).lower()
                raise LookError(f"{args[0]!r} is no type of a frame: they are {known}; or all")
            frames = [frame for frame in frames if frame.type == kind]
        return Seen([asdict(f) for f in frames], [frame_line(f) for f in frames])

    def tables(self, args: Sequence[str]) -> Seen:
        tables = self.inspection.tables()
        name = f"d{self.domain.domid}"
        return Seen([asdict(table) for table in tables], list(table_lines(name, tables)))

    def p2m(self, args: Sequence[str]) -> Seen:
        pfn = number(args[0], "frame number") if args else None
        rows = self.inspection.p2m(pfn)
        return Seen([asdict(row) for row in rows], list(p2m_lines(rows, is_list=not args)))

    # --- addresses ---------------------------------------------------------------------------
    def address(self, text: str) -> int:
        """The address that `text` means. Raises LookError."""
        name, _, offset = text.partition("+")
        try:
            return int(text, 0)
        except ValueError:
            pass
        base = self._register(name)
        try:
            if base is None:
                base = self.inspection.address_of(name)
        except ValueError as error:
            raise LookError(str(error)) from None
        return base + (number(offset, "offset") if offset else 0)

    def _register(self, name: str) -> int | None:
        wide = "r" + name[1:] if name.startswith("e") else name
        if wide not in REGISTERS:
            return None
        values = self.domain.vcpus[0].registers()
        return values.get(wide, values.get("e" + wide[1:]))


def number(text: str, what: str) -> int:
    """A number, decimal or 0x. Raises LookError."""
    try:
        return int(text, 0)
    except ValueError:
        raise LookError(f"{text!r} is no {what}: decimal or 0x") from None


LOOKS: Final = {
    "walk": Look("walk ADDR [user]", "the page tables' entries for ADDR", range(1, 4), Looker.walk),
    "frame": Look("frame MFN", "a frame, its counts and all its uses", range(1, 2), Looker.frame),
    "frames": Look(
        "frames [TYPE]", "count frames by type; list one type's, or all", range(2), Looker.frames
    ),
    "tables": Look("tables", "list the page tables", range(1), Looker.tables),
    "p2m": Look("p2m [PFN]", "compare the P2M with the M2P", range(2), Looker.p2m),
}


def checked(words: Iterable[str]) -> list[str]:
    """`words` as `Looker.show` takes them; a lone address is walked. Raises LookError."""
    found = list(words)
    if not found:
        raise LookError("nothing is asked for: an empty argument")
    look = LOOKS.get(found[0])
    if look is None:
        if len(found) > 1:
            raise LookError(f"{found[0]!r} is none of {', '.join(LOOKS)}")
        return ["walk", *found]
    if len(found) - 1 not in look.arguments:
        raise LookError(f"{' '.join(found)!r} should be: {look.usage}")
    return found


def wanted(texts: Iterable[str]) -> list[list[str]]:
    """What the user wrote, as words. Raises Refusal."""
    try:
        return [checked(shlex.split(text)) for text in texts]
    except (LookError, ValueError) as error:
        raise Refusal(str(error)) from None


def show_all(domain: DomainHandle, asked: Iterable[list[str]], *, as_json: bool = False) -> None:
    """Print what was asked for, with an empty line between two. Raises Refusal."""
    try:
        looker = Looker.at(domain)
        for index, words in enumerate(asked):
            seen = looker.show(words)
            if as_json:
                click.echo(json.dumps({"what": " ".join(words), "seen": seen.data}))
            else:
                click.echo("\n".join([*([""] if index else []), *seen.lines]))
    except LookError as error:
        raise Refusal(str(error)) from None
