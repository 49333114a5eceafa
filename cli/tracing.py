"""`--trace FILE`: the recorder on a file that is closed when the session ends."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from cli.exits import Refusal
from hypervisor.api import Machine
from hypervisor.trace.jsonl import JsonlRecorder


def open_trace(stack: ExitStack, machine: Machine, path: Path) -> None:
    """Write every entry of `machine` to `path` from now on, until `stack` is closed.

    Raises Refusal when the file cannot be written.
    """
    try:
        stream = stack.enter_context(path.open("w", encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Refusal(f"cannot write the trace {str(path)!r}: {reason}") from error
    machine.on_entry.append(JsonlRecorder(stream, machine.constants()))
