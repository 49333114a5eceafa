"""The VMM's own backends, in Domain 0's place: each domain's console and xenstore connection.

They are called in the guest's EVTCHNOP_send, so whatever a guest asks of them is done when its
hypercall returns. Input waits here until the guest's ring has room for it.

Both pages belong to the guest, which can unmap them, give them back or try to make page tables of
them. While a backend uses one, it holds a general and a writable type reference on it: the frame
stays this domain's, and stays ordinary memory, whatever the guest does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypervisor.backends import console, xenstore_ring
from hypervisor.backends.xenstore import Connection, Store, domu_tree, remove_domu_tree
from hypervisor.backends.xenstore.nodes import home_of
from hypervisor.control.host import Host
from hypervisor.domain.domain import Domain, DomainState
from hypervisor.mm.frames import FrameType
from hypervisor.x86.paging import PAGE_SHIFT, PAGE_SIZE


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
        for mfn in (dom.console_mfn, dom.store_mfn):
            dom.page_tables.get_page_and_type(mfn, FrameType.WRITABLE)
            dom.backend_frames.append(mfn)
        domu_tree(
            self.store,
            dom.domid,
            name=dom.name,
            uuid=_uuid(dom),
            memory_kib=dom.max_frames * PAGE_SIZE // 1024,
            vcpus=len(dom.vcpus),
            console_mfn=dom.console_mfn,
            console_port=dom.console_port,
            store_mfn=dom.store_mfn,
            store_port=dom.store_port,
        )
        self._attached[dom.domid] = _Attached(self.store.connect(dom.domid))
        xenstore_ring.advertise(self._page(dom.store_mfn))
        self._flush_others(dom)

    def ended(self, dom: Domain) -> None:
        """`dom` runs no more, but is still there."""
        self.store.domain_ended()
        self._flush_others(dom)

    def rename(self, dom: Domain, name: str) -> None:
        """`dom` is called `name` from now on, in the store too (libxl_domain_rename)."""
        dom.name = name
        self.store.write(f"{home_of(dom.domid)}/name", name)
        self.store.write(f"/vm/{_uuid(dom)}/name", name)
        self._flush_others(dom)

    def detach(self, dom: Domain) -> None:
        """Serve a domain no longer: its watches and transactions go, its tree with them."""
        attached = self._attached.pop(dom.domid, None)
        if attached is None:
            return
        self.store.release(attached.connection)
        remove_domu_tree(self.store, dom.domid, uuid=_uuid(dom))
        while dom.backend_frames:
            dom.page_tables.put_page_and_type(dom.backend_frames.pop())
        self._flush_others(dom)

    def _notified(self, dom: Domain, backend: str) -> None:
        match backend:
            case "console":
                self._drain_console(dom)
                self._feed_console(dom)
            case "xenstore":
                self._serve_xenstore(dom)

    def _notify(self, dom: Domain, port: int, backend: str) -> None:
        """Raise the port's event, unless the guest has closed it, or bound it to something else."""
        events = self._host.events
        if events.channel(dom, port).backend == backend:
            events.set_pending(dom, port)

    def _page(self, mfn: int) -> memoryview:
        return self._host.memory.frame(mfn)

    def _written(self, mfn: int) -> None:
        """The guest may have code there, of all places."""
        self._host.cpu.code_written(mfn << PAGE_SHIFT, PAGE_SIZE)

    # --- console ---------------------------------------------------------------------------------
    def console_input(self, domid: int, data: bytes) -> None:
        """Type `data` at a domain's console."""
        dom = self._host.domains.get(domid)
        if dom is None or dom.state is not DomainState.RUNNING:
            return
        self._attached[domid].typed += data
        self._feed_console(dom)

    def _drain_console(self, dom: Domain) -> None:
        data = console.drain(self._page(dom.console_mfn))
        if data:
            self._written(dom.console_mfn)
            self.console_output(dom, data)

    def _feed_console(self, dom: Domain) -> None:
        typed = self._attached[dom.domid].typed
        if typed and console.feed(self._page(dom.console_mfn), typed):
            self._written(dom.console_mfn)
            self._notify(dom, dom.console_port, "console")

    # --- xenstore --------------------------------------------------------------------------------
    def _serve_xenstore(self, dom: Domain) -> None:
        connection = self._attached[dom.domid].connection
        if xenstore_ring.serve(self.store, connection, self._page(dom.store_mfn)):
            self._tell(dom)
        self._flush_others(dom)

    def _flush_others(self, cause: Domain) -> None:
        """What `cause` has changed, others may be waiting to hear."""
        for domid, attached in self._attached.items():
            if domid != cause.domid and attached.connection.queue:
                dom = self._host.domains[domid]
                if dom.state is DomainState.RUNNING and xenstore_ring.flush(
                    attached.connection, self._page(dom.store_mfn)
                ):
                    self._tell(dom)

    def _tell(self, dom: Domain) -> None:
        self._written(dom.store_mfn)
        self._notify(dom, dom.store_port, "xenstore")


def _uuid(dom: Domain) -> str:
    raw = dom.handle.hex()
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))


def _nobody_listens(dom: Domain, data: bytes) -> None:
    """Output that nobody asked for is lost."""
