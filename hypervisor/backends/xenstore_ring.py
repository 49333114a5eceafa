"""A domain's xenstore page: requests out of its ring, replies and events into it.

Requests are read only while the domain takes its answers. Impossible indices and payloads that are
too long end the conversation, and the page says why (docs/misc/xenstore-ring.txt).
"""

from __future__ import annotations

import struct
from typing import Final

from hypervisor.abi.layout import layout
from hypervisor.abi.width import Width
from hypervisor.abi.xs_wire import (
    XENSTORE_SERVER_FEATURE_ERROR,
    XenstoreDomainInterface,
    XenstoreError,
)
from hypervisor.backends.rings import (
    XENSTORE_REPLIES,
    XENSTORE_REQUESTS,
    BadIndices,
    ByteStream,
)
from hypervisor.backends.xenstore import Connection, Store

_U32: Final = struct.Struct("<I")
_SHAPE: Final = layout(XenstoreDomainInterface, Width.X86_64)  # the same in all widths
_FEATURES: Final = _SHAPE.offset("server_features")
_ERROR: Final = _SHAPE.offset("error")


def advertise(page: memoryview) -> None:
    """Tell the domain what this server can do: say why it has stopped listening."""
    _U32.pack_into(page, _FEATURES, XENSTORE_SERVER_FEATURE_ERROR)


def serve(store: Store, connection: Connection, page: memoryview) -> bool:
    """Answer what the domain has asked; whether the page has changed.

    Ends: the guest does not run meanwhile, so each round empties its ring or finds it empty.
    """
    requests = ByteStream(page, XENSTORE_REQUESTS)
    has_changed = False
    while not connection.is_dropped:
        store.receive(connection, b"")  # what had to wait for answers to be taken
        has_changed |= flush(connection, page)
        if connection.is_stalled or connection.is_dropped:
            break
        try:
            data = requests.read()
        except BadIndices:
            _drop(connection, page, XenstoreError.RINGIDX)
            return True
        if not data:
            break
        has_changed = True
        store.receive(connection, data)
    if connection.is_dropped:
        _drop(connection, page, connection.error)
    return has_changed


def flush(connection: Connection, page: memoryview) -> bool:
    """Put waiting replies and events into the ring, as far as they go; whether any went."""
    if not connection.queue:
        return False
    try:
        count = ByteStream(page, XENSTORE_REPLIES).write(connection.peek(XENSTORE_REPLIES.size))
    except BadIndices:
        _drop(connection, page, XenstoreError.RINGIDX)
        return True
    connection.sent(count)
    return count > 0


def _drop(connection: Connection, page: memoryview, error: XenstoreError) -> None:
    connection.drop(error)
    _U32.pack_into(page, _ERROR, error)
