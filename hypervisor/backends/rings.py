"""The two oldest shared rings: console and xenstore, each one page with two byte streams.

A ring is an array whose size is a power of two and two free-running 32-bit indices: the producer
writes behind `prod`, the consumer reads behind `cons`, the difference is what is in it. Both lie in
a page that the guest can write at any time, so each is read once, checked and used; what is worked
on is the copy. A difference larger than the array is impossible, and refused (public/io/console.h,
public/io/xs_wire.h; check_indexes in xenstored).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from hypervisor.abi.console import XenconsInterface
from hypervisor.abi.layout import layout
from hypervisor.abi.width import Width
from hypervisor.abi.xs_wire import XenstoreDomainInterface

_U32: Final = struct.Struct("<I")
_M32: Final = 0xFFFF_FFFF


class BadIndices(Exception):
    """The ring cannot hold what its indices say."""


@dataclass(frozen=True, slots=True)
class RingLayout:
    """Where a stream lies in its page: array, size, indices."""

    data: int
    size: int
    cons: int
    prod: int


def _ring(interface: type[Any], array: str, prefix: str) -> RingLayout:
    shape = layout(interface, Width.X86_64)  # the same in all widths
    return RingLayout(
        shape.offset(array),
        shape.size_of(array),
        shape.offset(f"{prefix}_cons"),
        shape.offset(f"{prefix}_prod"),
    )


CONSOLE_IN: Final = _ring(XenconsInterface, "in_", "in")  # what the guest reads
CONSOLE_OUT: Final = _ring(XenconsInterface, "out", "out")
XENSTORE_REQUESTS: Final = _ring(XenstoreDomainInterface, "req", "req")  # from the guest
XENSTORE_REPLIES: Final = _ring(XenstoreDomainInterface, "rsp", "rsp")


class ByteStream:
    """One direction of a shared page, seen from the backend."""

    __slots__ = ("_page", "_ring")

    def __init__(self, page: memoryview, ring: RingLayout) -> None:
        self._page = page
        self._ring = ring

    def _indices(self) -> tuple[int, int, int]:
        """cons, prod, and how many bytes lie between. Raises BadIndices."""
        ring = self._ring
        (cons,) = _U32.unpack_from(self._page, ring.cons)
        (prod,) = _U32.unpack_from(self._page, ring.prod)
        used = (prod - cons) & _M32
        if used > ring.size:
            raise BadIndices(f"cons {cons:#x}, prod {prod:#x} in a ring of {ring.size} bytes")
        return cons, prod, used

    def read(self) -> bytes:
        """Everything the guest has produced; the ring is empty afterwards. Raises BadIndices."""
        ring = self._ring
        cons, prod, count = self._indices()
        if not count:
            return b""
        first = cons & (ring.size - 1)
        head = bytes(self._page[ring.data + first : ring.data + min(first + count, ring.size)])
        data = head + bytes(self._page[ring.data : ring.data + count - len(head)])
        _U32.pack_into(self._page, ring.cons, prod)
        return data

    @property
    def space(self) -> int:
        """How many bytes can be produced for the guest now. Raises BadIndices."""
        return self._ring.size - self._indices()[2]

    def write(self, data: bytes) -> int:
        """Produce as much of `data` as there is room for; how much that was. Raises BadIndices."""
        ring = self._ring
        _, prod, used = self._indices()
        count = min(len(data), ring.size - used)
        if not count:
            return 0
        first = prod & (ring.size - 1)
        head = min(count, ring.size - first)
        self._page[ring.data + first : ring.data + first + head] = data[:head]
        self._page[ring.data : ring.data + count - head] = data[head:count]
        _U32.pack_into(self._page, ring.prod, (prod + count) & _M32)
        return count
