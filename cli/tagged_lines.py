"""Several consoles on one terminal: each line behind its domain's tag."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

MET_CHECK: Final = b"ok   "
COLOURS: Final = ("cyan", "green", "yellow", "magenta", "blue", "bright_red")


@dataclass(slots=True)
class TaggedLines:
    """Assembles one console's bytes into lines and prints each behind the domain's tag.

    Of a guest's checks those that were met are counted and not shown: there are hundreds.
    """

    console: Console
    tag: str
    colour: str
    pending: bytearray = field(default_factory=bytearray)
    checks: int = 0

    def feed(self, data: bytes) -> None:
        """Print the lines that `data` completes."""
        self.pending += data
        *lines, rest = self.pending.split(b"\n")
        self.pending = bytearray(rest)
        for line in lines:
            if line.startswith(MET_CHECK):
                self.checks += 1
            else:
                self._print(line)

    def finish(self) -> None:
        """Print what is left without a line's end."""
        if self.pending:
            self._print(self.pending)
            self.pending.clear()

    def _print(self, line: bytes | bytearray) -> None:
        from rich.text import Text

        text = bytes(line).decode("utf-8", "replace").rstrip("\r")
        shown = "".join(c for c in text if c.isprintable())
        self.console.print(Text.assemble((self.tag, self.colour), " ", shown), soft_wrap=True)
