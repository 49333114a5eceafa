"""The VMM's own backends, in Domain 0's place: each domain's console and xenstore connection.

They are called in the guest's EVTCHNOP_send, so whatever a guest asks of them is done when its
hypercall returns. Input waits here until the guest's ring has room for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypervisor.backends.rings import (
    CONSOLE_IN,
    CONSOLE_OUT,
    XENSTORE_REPLIES,
    XENSTORE_REQUESTS,
    ByteStream,
)
from hypervisor.backends.xenstore import Connection, Store, domu_tree
from hypervisor.control.host import Host
from hypervisor.domain.domain import Domain, DomainState


@dataclass(slots=True)
class _Attached:
    """What is kept for one domain."""

    connection: Connection
    typed: bytearray = field(default_factory=bytearray)  # waiting for room in the console ring


class Backends:
    """All consoles and xenstore connections of a machine."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.store = Store()
        self._attached: dict[int, _Attached] = {}
        self.console_output: Callable[[Domain, bytes], None] = _nobody_listens
        host.events.notify_backend = self._notified

    def attach(self, dom: Domain) -> None:
        """Serve a new domain: its tree in xenstore, its rings."""
        domu_tree(
            self.store,
            dom.domid,
            name=dom.name,
            uuid=_uuid(dom),
            memory_kib=dom.max_frames * 4,
            vcpus=len(dom.vcpus),
            console_mfn=dom.console_mfn,
            console_port=dom.console_port,
            store_mfn=dom.store_mfn,
            store_port=dom.store_port,
        )
        self._attached[dom.domid] = _Attached(self.store.connect(dom.domid))

    def detach(self, dom: Domain) -> None:
        """Serve a domain no longer: its watches and transactions go, its tree with them."""
        attached = self._attached.pop(dom.domid, None)
        if attached is not None:
            self.store.release(attached.connection)

    def _notified(self, dom: Domain, backend: str) -> None:
        match backend:
            case "console":
                self._drain_console(dom)
                self._feed_console(dom)
            case "xenstore":
                self._serve_xenstore(dom)

    # --- console ---------------------------------------------------------------------------------
    def console_input(self, domid: int, data: bytes) -> None:
        """Type `data` at a domain's console."""
        dom = self._host.domains.get(domid)
        if dom is None or dom.state is not DomainState.RUNNING:
            return
        self._attached[domid].typed += data
        self._feed_console(dom)

    def _stream(self, mfn: int, layout: object) -> ByteStream:
        return ByteStream(self._host.memory.frame(mfn), layout)  # type: ignore[arg-type]

    def _drain_console(self, dom: Domain) -> None:
        data = self._stream(dom.console_mfn, CONSOLE_OUT).read()
        if data:
            self.console_output(dom, data)

    def _feed_console(self, dom: Domain) -> None:
        typed = self._attached[dom.domid].typed
        if not typed:
            return
        count = self._stream(dom.console_mfn, CONSOLE_IN).write(bytes(typed))
        del typed[:count]
        if count:
            self._host.events.notify_guest(dom, dom.console_port, "console")

    # --- xenstore --------------------------------------------------------------------------------
    def _serve_xenstore(self, dom: Domain) -> None:
        connection = self._attached[dom.domid].connection
        requests = self._stream(dom.store_mfn, XENSTORE_REQUESTS).read()
        self.store.receive(connection, requests)
        for attached in self._attached.values():
            self._flush_xenstore(attached.connection)

    def _flush_xenstore(self, connection: Connection) -> None:
        """Put replies and watch events into a domain's ring, as far as they go."""
        if not connection.output:
            return
        dom = self._host.domains[connection.domid]
        count = self._stream(dom.store_mfn, XENSTORE_REPLIES).write(bytes(connection.output))
        del connection.output[:count]
        if count:
            self._host.events.notify_guest(dom, dom.store_port, "xenstore")


def _uuid(dom: Domain) -> str:
    raw = dom.handle.hex()
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))


def _nobody_listens(dom: Domain, data: bytes) -> None:
    """Output that nobody asked for is lost."""
