"""A guest's console on our stdout, and our own lines beside it.

Guests leave the cursor where they like; a line of ours begins on a fresh one.
"""

from __future__ import annotations

import sys

import click


class ConsoleOutput:
    """Bytes of one console go to stdout as they come."""

    def __init__(self) -> None:
        self._stdout = sys.stdout.buffer
        self._at_line_start = True

    def write(self, data: bytes) -> None:
        """Show the guest's output now: somebody may be watching it come."""
        self._stdout.write(data)
        self._stdout.flush()
        if data:
            self._at_line_start = data.endswith(b"\n")

    def fresh_line(self) -> None:
        """Put the cursor at the start of a line."""
        if not self._at_line_start:
            self.write(b"\n")

    def say(self, sentence: str) -> None:
        """One sentence of ours on stderr."""
        self.fresh_line()
        click.echo(f"ring1: {sentence}", err=True)
