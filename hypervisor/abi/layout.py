"""Structures of the ABI, declared once and laid out per guest width.

A structure is a slotted dataclass whose fields are annotated with a C type (`U32`, `XenUlong`,
`CharArray(16)`, another structure). `abi_struct` works out, at import, where each field lies for
32-bit and for 64-bit guests, by the two rules of the System V ABIs that differ: `unsigned long` and
pointers follow the width, and i386 aligns 64-bit integers to 4 bytes where x86-64 aligns them to 8
(`Aligned64`, the headers' uint64_aligned_t, is aligned to 8 in both). The size that the header's
compiler gives is stated in the declaration, and a declaration that comes out otherwise is refused.

    @abi_struct(size=12)
    @dataclass(slots=True)
    class EvtchnBindInterdomain: ...

    shape = layout(EvtchnBindInterdomain, Width.X86_64)
    arg = shape.unpack_from(page, offset)

Unions are declared as the largest member; whoever uses them knows which one is meant.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, TypeVar, get_args, get_type_hints

from hypervisor.abi.width import Width

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A C integer: its struct codes and its alignment for 32-bit and 64-bit guests."""

    code32: str
    code64: str
    align32: int
    align64: int


@dataclass(frozen=True, slots=True)
class Chars:
    """char[size], as bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Array:
    """element[count], as a list."""

    element: Any  # an annotated type or a structure
    count: int


@dataclass(frozen=True, slots=True)
class PerWidth:
    """One type for 32-bit guests and another for 64-bit ones."""

    of_32: Any
    of_64: Any


def _fixed(code: str) -> Scalar:
    size = struct.calcsize("<" + code)
    return Scalar(code, code, min(size, 4), size)


U8 = Annotated[int, _fixed("B")]
U16 = Annotated[int, _fixed("H")]
U32 = Annotated[int, _fixed("I")]
U64 = Annotated[int, _fixed("Q")]
I8 = Annotated[int, _fixed("b")]
I16 = Annotated[int, _fixed("h")]
I32 = Annotated[int, _fixed("i")]
I64 = Annotated[int, _fixed("q")]
Aligned64 = Annotated[int, Scalar("Q", "Q", 8, 8)]  # uint64_aligned_t
XenUlong = Annotated[int, Scalar("I", "Q", 4, 8)]  # xen_ulong_t, unsigned long, xen_pfn_t
XenLong = Annotated[int, Scalar("i", "q", 4, 8)]
GuestPtr = Annotated[int, Scalar("I", "Q", 4, 8)]  # XEN_GUEST_HANDLE


def CharArray(size: int) -> Any:
    """The annotation of a char[size] field."""
    return Annotated[bytes, Chars(size)]


def ArrayOf(element: Any, count: int) -> Any:
    """The annotation of an element[count] field."""
    return Annotated[list[Any], Array(element, count)]


def ByWidth(of_32: Any, of_64: Any) -> Any:
    """The annotation of a field that has one type for 32-bit guests and another for 64-bit ones."""
    return Annotated[Any, PerWidth(of_32, of_64)]


@dataclass(frozen=True, slots=True)
class _Field:
    """One field, placed."""

    name: str
    offset: int
    size: int
    decode: Callable[[Sequence[Any], int], tuple[Any, int]] | None  # None: one plain item


class Layout:
    """Where everything of one structure lies, for one width."""

    __slots__ = ("_codec", "_encoders", "_fields", "_is_plain", "_make", "align", "size")

    def __init__(self, cls: type[Any], is_64: bool) -> None:
        self._make: Callable[..., Any] = cls
        placed: list[_Field] = []
        code = "<"
        at = 0
        self.align = 1
        self._encoders: list[Callable[[Any, list[Any]], None]] = []
        hints = get_type_hints(cls, include_extras=True)
        for field in fields(cls):
            part = _part(hints[field.name], is_64)
            pad = -at % part.align
            code += "x" * pad + part.code
            at += pad
            placed.append(_Field(field.name, at, part.size, part.decode))
            self._encoders.append(part.encode)
            at += part.size
            self.align = max(self.align, part.align)
        code += "x" * (-at % self.align)
        self._codec = struct.Struct(code)
        self._fields = {entry.name: entry for entry in placed}
        self._is_plain = all(entry.decode is None for entry in placed)
        self.size = self._codec.size

    def offset(self, name: str) -> int:
        """Where field `name` starts, in bytes."""
        return self._fields[name].offset

    def size_of(self, name: str) -> int:
        """How many bytes field `name` has."""
        return self._fields[name].size

    @property
    def field_names(self) -> tuple[str, ...]:
        """All fields, in order."""
        return tuple(self._fields)

    @property
    def code(self) -> str:
        """The whole structure in the language of the struct module."""
        return self._codec.format

    def unpack_from(self, buffer: Any, offset: int = 0) -> Any:
        """The structure that stands in `buffer` at `offset`."""
        items = self._codec.unpack_from(buffer, offset)
        if self._is_plain:
            return self._make(*items)
        return self.decode(items, 0)[0]

    def decode(self, items: Sequence[Any], at: int) -> tuple[Any, int]:
        """The structure whose unpacked items start at `at`, and where the next one's do."""
        values = []
        for field in self._fields.values():
            if field.decode is None:
                values.append(items[at])
                at += 1
            else:
                value, at = field.decode(items, at)
                values.append(value)
        return self._make(*values), at

    def encode(self, obj: Any, items: list[Any]) -> None:
        """Append the items of `obj`."""
        for name, encoder in zip(self._fields, self._encoders, strict=True):
            encoder(getattr(obj, name), items)

    def pack(self, obj: Any) -> bytes:
        """The bytes of `obj`; padding is zero."""
        items: list[Any] = []
        self.encode(obj, items)
        return self._codec.pack(*items)

    def pack_into(self, buffer: Any, offset: int, obj: Any) -> None:
        """Put the bytes of `obj` into `buffer` at `offset`."""
        items: list[Any] = []
        self.encode(obj, items)
        self._codec.pack_into(buffer, offset, *items)


@dataclass(frozen=True, slots=True)
class _Part:
    """How one annotated type is stored, for one width."""

    code: str
    size: int
    align: int
    decode: Callable[[Sequence[Any], int], tuple[Any, int]] | None
    encode: Callable[[Any, list[Any]], None]


def _append(value: Any, items: list[Any]) -> None:
    items.append(value)


def _part(annotation: Any, is_64: bool) -> _Part:
    match get_args(annotation)[-1] if get_args(annotation) else annotation:
        case Scalar() as scalar:
            code = scalar.code64 if is_64 else scalar.code32
            align = scalar.align64 if is_64 else scalar.align32
            return _Part(code, struct.calcsize("<" + code), align, None, _append)
        case Chars(size):
            return _Part(f"{size}s", size, 1, None, _append)
        case PerWidth(of_32, of_64):
            return _part(of_64 if is_64 else of_32, is_64)
        case Array(element, count):
            return _array(_part(element, is_64), count)
        case type() as cls if cls in _LAYOUTS:
            return _nested(_LAYOUTS[cls][is_64])
    raise TypeError(f"{annotation!r} is no type of the ABI")


def _nested(inner: Layout) -> _Part:
    return _Part(inner.code[1:], inner.size, inner.align, inner.decode, inner.encode)


def _array(element: _Part, count: int) -> _Part:
    def decode(items: Sequence[Any], at: int) -> tuple[list[Any], int]:
        if element.decode is None:
            return list(items[at : at + count]), at + count
        values = []
        for _ in range(count):
            value, at = element.decode(items, at)
            values.append(value)
        return values, at

    def encode(values: Any, items: list[Any]) -> None:
        if len(values) != count:
            raise ValueError(f"{len(values)} elements in an array of {count}")
        for value in values:
            element.encode(value, items)

    return _Part(element.code * count, element.size * count, element.align, decode, encode)


_LAYOUTS: Final[dict[type[Any], tuple[Layout, Layout]]] = {}


def abi_struct(
    *, size: int | None = None, size32: int | None = None, size64: int | None = None
) -> Callable[[type[_T]], type[_T]]:
    """Lay a dataclass out for both word sizes.

    Raises TypeError, at import, if a size is not what was stated.
    """
    stated = (size if size is not None else size32, size if size is not None else size64)

    def register(cls: type[_T]) -> type[_T]:
        shapes = (Layout(cls, is_64=False), Layout(cls, is_64=True))
        for bits, want, shape in zip((32, 64), stated, shapes, strict=True):
            if want is not None and want != shape.size:
                raise TypeError(
                    f"{cls.__name__}: {shape.size} bytes for {bits}-bit guests, stated {want}"
                )
        _LAYOUTS[cls] = shapes
        return cls

    return register


def layout(cls: type[Any], width: Width) -> Layout:
    """The layout of a declared structure for guests of `width`."""
    return _LAYOUTS[cls][width.is_64]


def declared() -> tuple[type[Any], ...]:
    """All structures declared so far."""
    return tuple(_LAYOUTS)
