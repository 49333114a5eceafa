"""Structures of the ABI as a fuzzer fills them: bytes by their layouts, meanings by their names."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Final, get_args, get_type_hints

from hypervisor.abi.layout import Array, Chars, PerWidth, layout
from hypervisor.abi.width import Width

#: By part of a field's name, the first that fits.
_HINTS: Final = (
    (("dom",), "domid"),
    (("extent_start", "buffer", "frame_list", "ports", "bitmap", "addr", "array"), "pointer"),
    (("exchanged",), "progress"),
    (("nr_", "count", "max_extents", "entries", "length", "size"), "count"),
    (("port",), "port"),
    (("vcpu",), "vcpu"),
    (("mfn", "gfn", "frame", "pfn"), "frame"),
    (("ref",), "gref"),
    (("order",), "order"),
    (("flags", "type", "version", "cmd", "idx", "reason", "virq", "iopl", "status"), "small"),
    (("handle",), "small"),
    (("offset",), "offset"),
    (("time", "period"), "time"),
)


_MEMBERS: Final[dict[tuple[str, Width], tuple[tuple[str, int], ...]]] = {}


def members(cls: type[Any], width: Width) -> tuple[tuple[str, int], ...]:
    """A structure's bytes in order: (field's name, size) each, "" for padding."""
    key = cls.__qualname__, width
    if key not in _MEMBERS:
        _MEMBERS[key] = tuple(_members(cls, width))
    return _MEMBERS[key]


def _members(cls: type[Any], width: Width) -> list[tuple[str, int]]:
    shape = layout(cls, width)
    hints = get_type_hints(cls, include_extras=True)
    found: list[tuple[str, int]] = []
    at = 0
    for field in fields(cls):
        offset, size = shape.offset(field.name), shape.size_of(field.name)
        found += [("", 1)] * (offset - at)
        found += _parts(field.name, hints[field.name], size, width)
        at = offset + size
    found += [("", 1)] * (shape.size - at)
    return found


def _parts(name: str, hint: Any, size: int, width: Width) -> list[tuple[str, int]]:
    kind = get_args(hint)[-1] if get_args(hint) else hint
    match kind:
        case Array(element, count):
            return _parts(name, element, size // count, width) * count
        case PerWidth(of_32, of_64):
            return _parts(name, of_64 if width.is_64 else of_32, size, width)
        case Chars(length):
            return [(name, 1)] * length
        case type() if is_dataclass(kind):
            return list(members(kind, width))
    return [(name, size)]


@cache
def meaning_of(name: str) -> str:
    """What a field holds, by its name."""
    for parts, meaning in _HINTS:
        if any(part in name for part in parts):
            return meaning
    return "any"
