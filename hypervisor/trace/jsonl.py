"""Traces as text: one JSON object a line, the machine's constants first.

Made for `grep`, `jq` and `diff`: two runs that are the same run give the same bytes, so the first
line that differs is the first divergence. Addresses, arguments and results are hexadecimal text,
because JSON's readers keep numbers exact only up to 2^53.

A file whose last line is cut off, because the run was killed, is still read up to there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from hypervisor.probes import Entry
from hypervisor.trace.names import entry_name, operation_name

FORMAT: Final = "ring1 trace 1"  # value of the head's "format"; a change of meaning counts it up


class TraceError(ValueError):
    """The file is not a trace that can be read; the message is one sentence."""


class JsonlRecorder:
    """Writes a trace; called with each entry."""

    def __init__(self, stream: TextIO, constants: Mapping[str, int | str]) -> None:
        """`constants` are the machine's: what a replay must be given to be the same run."""
        self._write = stream.write
        self._encode = json.JSONEncoder(separators=(",", ":")).encode
        self._write(self._encode({"format": FORMAT, **constants}) + "\n")

    def __call__(self, entry: Entry) -> None:
        self._write(self._encode(as_object(entry)) + "\n")


def as_object(entry: Entry) -> dict[str, Any]:
    """The JSON object for one entry. `op`, `result` and `why` stand there only if there is one."""
    row: dict[str, Any] = {
        "ps": entry.time_ps,
        "dom": entry.domid,
        "vcpu": entry.vcpu_id,
        "kind": entry.kind,
        "name": entry_name(entry.kind, entry.number),
        "nr": entry.number,
        "rip": hex(entry.rip),
        "args": [hex(arg) for arg in entry.args],
        "sum": f"{entry.checksum:08x}",
    }
    if (operation := operation_name(entry)) is not None:
        row["op"] = operation
    if entry.result is not None:
        row["result"] = hex(entry.result)
    if entry.why:
        row["why"] = entry.why
    return row


def read_trace(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """The head of a trace and its entries in order. Raises TraceError and OSError."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        head = _object(stream.readline())
    if head is None or head.get("format") != FORMAT:
        raise TraceError(f"{str(path)!r} is not a trace of ring1: its first line is no head")
    return head, _entries(path)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as stream:
        next(stream)
        for number, line in enumerate(stream, start=2):
            row = _object(line)
            if row is None:
                if not line.endswith("\n"):
                    return  # cut off in the middle of writing
                raise TraceError(f"line {number} of {str(path)!r} is not a JSON object")
            yield row


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
