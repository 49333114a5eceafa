"""What the hypervisor's own console shows: `xl dmesg` of a real Xen.

Domain 0's console is this one, so it writes as it likes. What other domains write by console_io
comes line by line with their number before it, printable characters only, as from a Xen that was
built to let them (guest_console_write in Xen's drivers/char/console.c). The log keeps its end:
however much a guest writes, it cannot fill the machine.
"""

from __future__ import annotations

from typing import Final

LOG_BYTES: Final = 1 << 16
LINE_BYTES: Final = 199  # DOMAIN_DEBUG_BUF_SIZE, and the zero behind
_UNPRINTABLE: Final = bytes({*range(256)} - {*range(0x20, 0x7F)} - {ord("\t"), ord("\n")})


class XenLog:
    """The log, and the lines that domains have begun."""

    def __init__(self) -> None:
        self.text = bytearray()
        self._begun: dict[int, bytearray] = {}

    def write(self, data: bytes) -> None:
        """Append as it is."""
        self.text += data
        del self.text[: max(0, len(self.text) - LOG_BYTES)]

    def write_lines(self, domid: int, data: bytes) -> None:
        """Append what a domain says; an unfinished line waits for its end."""
        begun = self._begun.setdefault(domid, bytearray())
        begun += data.translate(None, delete=_UNPRINTABLE)
        while (end := begun.find(b"\n", 0, LINE_BYTES + 1)) >= 0 or len(begun) >= LINE_BYTES:
            line = begun[: end if end >= 0 else LINE_BYTES]
            del begun[: end + 1 if end >= 0 else LINE_BYTES]
            self.write(b"(d%d) %s\n" % (domid, line))

    def forget(self, domid: int) -> None:
        """A domain is gone, and its unfinished line with it."""
        self._begun.pop(domid, None)
