"""Messages: struct xsd_sockmsg and its payload (public/io/xs_wire.h)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hypervisor.abi.layout import layout
from hypervisor.abi.width import Width
from hypervisor.abi.xs_wire import XENSTORE_PAYLOAD_MAX, XsdSockmsg

_HEADER: Final = layout(XsdSockmsg, Width.X86_64)  # the same in all widths


@dataclass(frozen=True, slots=True)
class Message:
    """One request, reply or event."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes

    def encode(self) -> bytes:
        """Header and payload."""
        header = XsdSockmsg(self.type, self.req_id, self.tx_id, len(self.payload))
        return _HEADER.pack(header) + self.payload


class ProtocolError(Exception):
    """A payload longer than any may be: what follows it cannot be understood."""


def take_message(pending: bytearray) -> Message | None:
    """The first whole message of a stream, removed from it; None while it is incomplete.

    Raises ProtocolError as soon as the header promises too much.
    """
    if len(pending) < _HEADER.size:
        return None
    header = _HEADER.unpack_from(pending)
    if header.len > XENSTORE_PAYLOAD_MAX:
        raise ProtocolError(f"a payload of {header.len} bytes; at most {XENSTORE_PAYLOAD_MAX}")
    end = _HEADER.size + header.len
    if len(pending) < end:
        return None
    payload = bytes(pending[_HEADER.size : end])
    del pending[:end]
    return Message(header.type, header.req_id, header.tx_id, payload)
