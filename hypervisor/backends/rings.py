"""The two oldest shared rings: console and xenstore, each one page with two byte streams.

A ring is an array whose size is a power of two and two free-running 32-bit indices: the producer
writes behind `prod`, the consumer reads behind `cons`, the difference is what is in it. The other
side is a guest, so its index can hold anything: a difference larger than the array is taken as an
empty or a full ring, never followed (public/io/console.h, public/io/xs_wire.h).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_U32: Final = struct.Struct("<I")
_M32: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class RingLayout:
    """Where a stream lies in its page: array, size, indices."""

    data: int
    size: int
    cons: int
    prod: int


#: struct xencons_interface; `in` is what the guest reads.
CONSOLE_IN: Final = RingLayout(0, 1024, 3072, 3076)
CONSOLE_OUT: Final = RingLayout(1024, 2048, 3080, 3084)
#: struct xenstore_domain_interface; requests come from the guest.
XENSTORE_REQUESTS: Final = RingLayout(0, 1024, 2048, 2052)
XENSTORE_REPLIES: Final = RingLayout(1024, 1024, 2056, 2060)


class ByteStream:
    """One direction of a shared page, seen from the backend."""

    def __init__(self, page: memoryview, layout: RingLayout) -> None:
        self._page = page
        self._layout = layout

    def _index(self, at: int) -> int:
        value: int = _U32.unpack_from(self._page, at)[0]
        return value

    def read(self) -> bytes:
        """Everything the guest has produced; the ring is empty afterwards."""
        ring = self._layout
        cons, prod = self._index(ring.cons), self._index(ring.prod)
        count = (prod - cons) & _M32
        if count > ring.size:
            return b""
        data = self._slice(cons, count)
        _U32.pack_into(self._page, ring.cons, prod)
        return data

    def _slice(self, start: int, count: int) -> bytes:
        ring = self._layout
        first = start & (ring.size - 1)
        whole = bytes(self._page[ring.data + first : ring.data + min(first + count, ring.size)])
        return whole + bytes(self._page[ring.data : ring.data + count - len(whole)])

    @property
    def space(self) -> int:
        """How many bytes can be produced for the guest now."""
        ring = self._layout
        used = (self._index(ring.prod) - self._index(ring.cons)) & _M32
        return max(0, ring.size - used)

    def write(self, data: bytes) -> int:
        """Produce as much of `data` as there is room for; how much that was."""
        ring = self._layout
        count = min(len(data), self.space)
        prod = self._index(ring.prod)
        first = prod & (ring.size - 1)
        head = min(count, ring.size - first)
        self._page[ring.data + first : ring.data + first + head] = data[:head]
        self._page[ring.data : ring.data + count - head] = data[head:count]
        _U32.pack_into(self._page, ring.prod, (prod + count) & _M32)
        return count
