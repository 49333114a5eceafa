"""The console's other end: bytes out of the guest's ring, bytes typed into it.

Impossible indices make a ring look empty, or full: the guest has only itself to blame for what is
lost, and can set them right (xenconsoled does the same).
"""

from __future__ import annotations

from typing import Final

from hypervisor.backends.rings import CONSOLE_IN, CONSOLE_OUT, BadIndices, ByteStream

#: How much of its output is kept at least; a domain is told so as console/limit in xenstore.
LIMIT_BYTES: Final = 1 << 20


def drain(page: memoryview) -> bytes:
    """What the guest has written since the last time."""
    try:
        return ByteStream(page, CONSOLE_OUT).read()
    except BadIndices:
        return b""


def feed(page: memoryview, typed: bytearray) -> int:
    """Move what fits of `typed` into the guest's ring; how many bytes that were."""
    try:
        count = ByteStream(page, CONSOLE_IN).write(bytes(typed[: CONSOLE_IN.size]))
    except BadIndices:
        return 0
    del typed[:count]
    return count
