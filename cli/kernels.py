"""From what the user typed to a kernel's bytes, with a sentence for everything that is not one."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from cli.exits import Refusal
from guests import built_guests, guest_path
from hypervisor.abi.width import Width


@dataclass(frozen=True, slots=True)
class Kernel:
    """Where a kernel is, what to call its domain, and which width was asked for."""

    name: str
    path: Path
    width: Width | None  # None: the image says


def find_kernel(text: str, width: str) -> Kernel:
    """The kernel that KERNEL means: a built-in guest by its bare name, else a file.

    A built-in wins over a file of the same name, so that `ring1 boot hello` means the same in
    every folder; `./hello` is the file.
    """
    if text in built_guests():
        return _built_in(text, width)
    path = Path(text)
    if not path.exists():
        raise Refusal(f"there is no file {text!r} and no built-in guest of that name{_hint(text)}")
    return Kernel(path.stem, path, _width(width))


def _built_in(name: str, width: str) -> Kernel:
    widths = built_guests()[name].widths
    chosen = widths[0] if width == "auto" else width
    if chosen not in widths:
        having = ", ".join(widths)
        raise Refusal(f"the built-in guest {name} is not built for {chosen} (only for {having})")
    return Kernel(name, guest_path(name, chosen), _width(chosen))


def _width(name: str) -> Width | None:
    return None if name == "auto" else Width(name)


def _hint(text: str) -> str:
    near = difflib.get_close_matches(text, built_guests(), n=1)
    return f"; did you mean {near[0]}?" if near else " (`ring1 guests` lists them)"


def read_file(path: Path, what: str) -> bytes:
    """The file's bytes. Raises Refusal with a sentence that calls it `what`."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Refusal(f"cannot read the {what} {str(path)!r}: {reason}") from error
