"""The store: the tree, everyone connected to it, and who is told of what has changed."""

from __future__ import annotations

from collections import Counter
from typing import Final

from hypervisor.abi.xs_wire import XenstoreError, XsType
from hypervisor.backends.xenstore.connection import Connection, Watch
from hypervisor.backends.xenstore.limits import MAX_PAYLOAD, MAX_TRANSACTIONS
from hypervisor.backends.xenstore.nodes import (
    PRIVILEGED,
    Node,
    Permission,
    Permissions,
    XsError,
    allows,
    is_below,
)
from hypervisor.backends.xenstore.requests import REQUESTS
from hypervisor.backends.xenstore.tree import Changes, Nodes, Transaction, Tree
from hypervisor.backends.xenstore.wire import Message, ProtocolError, take_message

_DOM0_ONLY: Final[Permissions] = (Permission("n", PRIVILEGED),)
_OK: Final = b"OK\0"


class Store:
    """The tree and everyone connected to it."""

    def __init__(self) -> None:
        self.nodes: Nodes = {"/": Node()}
        self.owned: Counter[int] = Counter({PRIVILEGED: 1})  # nodes, by owner
        self.connections: list[Connection] = []
        #: Who may hear of special events; SET_PERMS changes it.
        self.special = {"@introduceDomain": _DOM0_ONLY, "@releaseDomain": _DOM0_ONLY}
        for path in ("/tool/xenstored", "/local/domain", "/vm"):
            self.write(path, b"")

    # --- for the control side ------------------------------------------------------------------
    def connect(self, domid: int) -> Connection:
        """A connection for a domain."""
        connection = Connection(domid)
        self.connections.append(connection)
        self._fire_special("@introduceDomain")
        return connection

    def release(self, connection: Connection) -> None:
        """A domain is gone, its watches and transactions with it."""
        self.connections.remove(connection)
        self._fire_special("@releaseDomain")

    def write(self, path: str, value: bytes | str) -> None:
        """Write as Domain 0."""
        tree = self.tree()
        tree.write(path, PRIVILEGED, value.encode() if isinstance(value, str) else value)
        self.fire(tree.changes)

    def set_permissions(self, path: str, *entries: tuple[str, int]) -> None:
        """Set permissions as Domain 0."""
        tree = self.tree()
        wanted = tuple(Permission(letter, domid) for letter, domid in entries)
        tree.set_permissions(path, PRIVILEGED, wanted)
        self.fire(tree.changes)

    def remove(self, path: str) -> None:
        """Remove as Domain 0; what does not exist may be removed."""
        if path in self.nodes:
            tree = self.tree()
            tree.remove(path, PRIVILEGED)
            self.fire(tree.changes)

    def read(self, path: str) -> bytes | None:
        """A value, None if there is no such node."""
        node = self.nodes.get(path)
        return None if node is None else node.value

    # --- requests ------------------------------------------------------------------------------
    def receive(self, connection: Connection, data: bytes) -> None:
        """Take bytes from a domain; answers and events go to the queues of connections.

        A domain that lets its answers lie gets no new ones: call again, with nothing, when it has
        taken some.
        """
        if connection.is_dropped:
            return
        connection.input += data
        while not connection.is_stalled:
            try:
                request = take_message(connection.input)
            except ProtocolError:
                connection.drop(XenstoreError.PROTO)
                return
            if request is None:
                return
            self._answer(connection, request)

    def _answer(self, connection: Connection, request: Message) -> None:
        kind = request.type
        first_event: Watch | None = None
        try:
            payload = self._do(connection, request)
            if isinstance(payload, Watch):
                first_event, payload = payload, _OK
            if len(payload) > MAX_PAYLOAD:
                raise XsError("E2BIG", f"an answer of {len(payload)} bytes")
        except XsError as refusal:
            kind, payload = XsType.ERROR, refusal.name.encode() + b"\0"
        connection.reply(Message(kind, request.req_id, request.tx_id, payload))
        if first_event is not None:
            self._send_event(connection, first_event, first_event.path, is_first=True)

    def _do(self, connection: Connection, request: Message) -> bytes | Watch:
        """Do what a request asks for. Raises XsError."""
        row = REQUESTS.get(request.type)
        if row is None:
            raise XsError("ENOSYS", f"message type {request.type} is unknown")
        if row.is_privileged and connection.domid != PRIVILEGED:
            raise XsError("EACCES", f"d{connection.domid} may not do that")
        tree = self.tree()
        if request.tx_id and not row.ignores_transaction:
            tree = self._transaction(connection, request.tx_id)
        result = row.handler(self, connection, tree, request)
        if not isinstance(tree, Transaction):
            self.fire(tree.changes)
        return _OK if result is None else result

    def tree(self) -> Tree:
        """The tree as it is, to be changed."""
        return Tree(self.nodes, self.owned)

    # --- transactions --------------------------------------------------------------------------
    def _transaction(self, connection: Connection, number: int) -> Transaction:
        transaction = connection.transactions.get(number)
        if transaction is None:
            raise XsError("ENOENT", f"transaction {number} does not exist")
        return transaction

    def start_transaction(self, connection: Connection) -> int:
        """A new transaction's number. Raises XsError(ENOSPC) if the domain has too many."""
        running = connection.transactions
        if connection.domid != PRIVILEGED and len(running) > MAX_TRANSACTIONS:
            raise XsError("ENOSPC", f"d{connection.domid} has {len(running)} transactions")
        number = connection.next_transaction
        while number in running or number == 0:
            number = number + 1 & 0xFFFF_FFFF
        connection.next_transaction = number + 1 & 0xFFFF_FFFF
        running[number] = Transaction(self.nodes, self.owned, domid=connection.domid)
        return number

    # --- watches -------------------------------------------------------------------------------
    def fire(self, changes: Changes) -> None:
        """Tell everyone who watches, and may read it, what has changed."""
        for connection in self.connections:
            watched = {watch.path for watch in connection.watches.values()}
            for (path, is_exact), readers in changes.items():
                if not watched or (is_exact and path not in watched):
                    continue
                if any(allows(permissions, connection.domid, "r") for permissions in readers):
                    self._tell(connection, path, is_exact)

    def _tell(self, connection: Connection, path: str, is_exact: bool) -> None:
        for watch in connection.watches.values():
            if path == watch.path or (not is_exact and is_below(path, watch.path)):
                self._send_event(connection, watch, path)

    def domain_ended(self) -> None:
        """A domain has shut down: who waits for that looks which (domain_cleanup in xenstored)."""
        self._fire_special("@releaseDomain")

    def _fire_special(self, path: str) -> None:
        for connection in self.connections:
            if allows(self.special[path], connection.domid, "r"):
                for watch in connection.watches.values():
                    if watch.path == path:
                        self._send_event(connection, watch, path)

    def _send_event(
        self, connection: Connection, watch: Watch, path: str, *, is_first: bool = False
    ) -> None:
        if watch.relative_to:
            path = path.removeprefix(watch.relative_to).removeprefix("/")
        payload = path.encode("latin-1") + b"\0" + watch.token + b"\0"
        connection.event(Message(XsType.WATCH_EVENT, 0, 0, payload), is_first=is_first)
