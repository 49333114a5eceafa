"""The store: connections, their transactions and watches, and the answers to requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hypervisor.backends.xenstore.tree import (
    PRIVILEGED,
    Node,
    Nodes,
    Permission,
    Tree,
    XsError,
    absolute,
    parent_of,
    parse_permissions,
)
from hypervisor.backends.xenstore.wire import MAX_PAYLOAD, Message, XsType, take_message

MAX_WATCHES: Final = 128  # quota_nb_watch_per_domain
MAX_TRANSACTIONS: Final = 10  # quota_max_transaction
SPECIAL_PATHS: Final = ("@introduceDomain", "@releaseDomain")


@dataclass(slots=True)
class Watch:
    """Somebody wants to hear of a path and all below it."""

    path: str  # absolute, or special
    token: str
    is_relative: bool  # events name the path as the watch did


@dataclass(slots=True)
class Transaction:
    """A view of the tree as it was, with changes that nobody else sees yet."""

    base: Nodes
    tree: Tree


@dataclass(slots=True)
class Connection:
    """One domain's end of the store."""

    domid: int
    input: bytearray = field(default_factory=bytearray)
    output: bytearray = field(default_factory=bytearray)
    watches: list[Watch] = field(default_factory=list)
    transactions: dict[int, Transaction] = field(default_factory=dict)
    next_transaction: int = 1
    is_broken: bool = False  # it sent what is no message


class Store:
    """The tree and everyone connected to it."""

    def __init__(self) -> None:
        self.nodes: Nodes = {"/": Node(permissions=(Permission("n", PRIVILEGED),))}
        self.connections: list[Connection] = []
        for path in ("/local", "/local/domain", "/vm"):
            self.write(path, b"")

    # --- for the control side ------------------------------------------------------------------
    def connect(self, domid: int) -> Connection:
        """A connection for a domain."""
        connection = Connection(domid)
        self.connections.append(connection)
        self._fire_special("@introduceDomain")
        return connection

    def release(self, connection: Connection) -> None:
        """A domain is gone, and its part of the tree with it."""
        self.connections.remove(connection)
        home = f"/local/domain/{connection.domid}"
        if home in self.nodes:
            self.remove(home)
        self._fire_special("@releaseDomain")

    def write(self, path: str, value: bytes | str) -> None:
        """Write as Domain 0."""
        tree = Tree.over(self.nodes)
        tree.write(path, PRIVILEGED, value.encode() if isinstance(value, str) else value)
        self._fire(tree)

    def set_permissions(self, path: str, *entries: tuple[str, int]) -> None:
        """Set permissions as Domain 0."""
        tree = Tree.over(self.nodes)
        wanted = tuple(Permission(letter, domid) for letter, domid in entries)
        tree.set_permissions(path, PRIVILEGED, wanted)
        self._fire(tree)

    def remove(self, path: str) -> None:
        """Remove as Domain 0."""
        tree = Tree.over(self.nodes)
        tree.remove(path, PRIVILEGED)
        self._fire(tree)

    def read(self, path: str) -> bytes | None:
        """A value, None if there is no such node."""
        node = self.nodes.get(path)
        return None if node is None else node.value

    # --- requests
    # ----------------------------------------------------------------------------------
    def receive(self, connection: Connection, data: bytes) -> None:
        """Take bytes from a domain; answers and events go to the outputs of connections."""
        if connection.is_broken:
            return
        connection.input += data
        while True:
            try:
                request = take_message(connection.input)
            except ValueError:
                connection.is_broken = True
                return
            if request is None:
                return
            self._answer(connection, request)

    def _answer(self, connection: Connection, request: Message) -> None:
        handler = _HANDLERS.get(request.type)
        kind = request.type
        before = len(connection.output)
        try:
            if handler is None:
                raise XsError("ENOSYS", f"message type {request.type} is unknown")
            payload = handler(self, connection, request)
            if len(payload) > MAX_PAYLOAD:
                raise XsError("E2BIG", f"an answer of {len(payload)} bytes")
        except XsError as refusal:
            kind, payload = XsType.ERROR, refusal.name.encode() + b"\0"
        reply = Message(kind, request.req_id, request.tx_id, payload).encode()
        # The answer goes before the events that the request itself caused.
        connection.output[before:before] = reply
        if kind == XsType.WATCH:
            self._send_event(connection, connection.watches[-1], connection.watches[-1].path)

    def _view(self, connection: Connection, request: Message) -> Tree:
        """The tree that a request works on: the store's, or its transaction's."""
        if request.tx_id == 0:
            return Tree.over(self.nodes)
        transaction = connection.transactions.get(request.tx_id)
        if transaction is None:
            raise XsError("ENOENT", f"transaction {request.tx_id} does not exist")
        return transaction.tree

    def _done(self, request: Message, tree: Tree) -> None:
        """A change outside of transactions is heard of at once."""
        if request.tx_id == 0:
            self._fire(tree)

    def _read(self, connection: Connection, request: Message) -> bytes:
        path = absolute(_one(request), connection.domid)
        return self._view(connection, request).require(path, connection.domid, "r").value

    def _directory(self, connection: Connection, request: Message) -> bytes:
        path = absolute(_one(request), connection.domid)
        node = self._view(connection, request).require(path, connection.domid, "r")
        return b"".join(name.encode() + b"\0" for name in node.children)

    def _directory_part(self, connection: Connection, request: Message) -> bytes:
        """A piece of a long list: a generation, then names from a byte offset on."""
        fields = _fields(request, 2)
        path = absolute(fields[0], connection.domid)
        node = self._view(connection, request).require(path, connection.domid, "r")
        listed = b"".join(name.encode() + b"\0" for name in node.children)
        start = _number(fields[1])
        generation = b"%d\0" % len(listed)
        room = MAX_PAYLOAD - len(generation) - 1
        part = listed[start : start + room]
        if start + len(part) < len(listed):
            part = part[: part.rfind(b"\0") + 1]
            return generation + part
        return generation + part + b"\0"

    def _get_perms(self, connection: Connection, request: Message) -> bytes:
        path = absolute(_one(request), connection.domid)
        node = self._view(connection, request).require(path, connection.domid, "r")
        return b"".join(entry.text().encode() + b"\0" for entry in node.permissions)

    def _set_perms(self, connection: Connection, request: Message) -> bytes:
        fields = _fields(request, 2)
        path = absolute(fields[0], connection.domid)
        tree = self._view(connection, request)
        tree.set_permissions(path, connection.domid, parse_permissions(fields[1:]))
        self._done(request, tree)
        return _OK

    def _write(self, connection: Connection, request: Message) -> bytes:
        name, separator, value = request.payload.partition(b"\0")
        if not separator:
            raise XsError("EINVAL", "a path without its terminating zero")
        path = absolute(_text(name), connection.domid)
        tree = self._view(connection, request)
        tree.write(path, connection.domid, value)
        self._done(request, tree)
        return _OK

    def _mkdir(self, connection: Connection, request: Message) -> bytes:
        path = absolute(_one(request), connection.domid)
        tree = self._view(connection, request)
        tree.mkdir(path, connection.domid)
        self._done(request, tree)
        return _OK

    def _rm(self, connection: Connection, request: Message) -> bytes:
        path = absolute(_one(request), connection.domid)
        tree = self._view(connection, request)
        tree.remove(path, connection.domid)
        self._done(request, tree)
        return _OK

    # --- transactions
    # ------------------------------------------------------------------------------------
    def _transaction_start(self, connection: Connection, request: Message) -> bytes:
        if request.tx_id:
            raise XsError("EBUSY", "a transaction inside a transaction")
        if connection.domid != PRIVILEGED and len(connection.transactions) >= MAX_TRANSACTIONS:
            raise XsError("ENOSPC", f"d{connection.domid} has {MAX_TRANSACTIONS} transactions")
        number = connection.next_transaction
        connection.next_transaction += 1
        base = dict(self.nodes)
        connection.transactions[number] = Transaction(base, Tree.over(dict(base)))
        return b"%d\0" % number

    def _transaction_end(self, connection: Connection, request: Message) -> bytes:
        answer = _one(request)
        if answer not in ("T", "F"):
            raise XsError("EINVAL", f"a transaction ends with T or F, not {answer[:8]!r}")
        transaction = connection.transactions.pop(request.tx_id, None)
        if transaction is None:
            raise XsError("ENOENT", f"transaction {request.tx_id} does not exist")
        if answer == "T":
            self._commit(transaction)
        return _OK

    def _commit(self, transaction: Transaction) -> None:
        """All changes at once. Raises XsError(EAGAIN) if what it looked at has changed since."""
        tree, base = transaction.tree, transaction.base
        for path in tree.touched:
            if self.nodes.get(path) is not base.get(path):
                raise XsError("EAGAIN", f"{path} was changed by somebody else")
        for path in tree.nodes.keys() | base.keys():
            after = tree.nodes.get(path)
            if after is base.get(path):
                continue
            if after is None:
                self.nodes.pop(path, None)
            else:
                self.nodes[path] = after
        self._fire(tree)

    # --- watches
    # -----------------------------------------------------------------------------------------
    def _watch(self, connection: Connection, request: Message) -> bytes:
        name, token = _fields(request, 2)[:2]
        if name.startswith("@"):
            path, is_relative = name, False
            if name not in SPECIAL_PATHS:
                raise XsError("EINVAL", f"{name!r} is no special path")
            if connection.domid != PRIVILEGED:
                raise XsError("EACCES", f"d{connection.domid} may not watch {name}")
        else:
            path, is_relative = absolute(name, connection.domid), not name.startswith("/")
        if any(w.path == path and w.token == token for w in connection.watches):
            raise XsError("EEXIST", f"{path} is watched with {token!r} already")
        if connection.domid != PRIVILEGED and len(connection.watches) >= MAX_WATCHES:
            raise XsError("E2BIG", f"d{connection.domid} has {MAX_WATCHES} watches")
        connection.watches.append(Watch(path, token, is_relative))
        return _OK

    def _unwatch(self, connection: Connection, request: Message) -> bytes:
        name, token = _fields(request, 2)[:2]
        path = name if name.startswith("@") else absolute(name, connection.domid)
        for watch in connection.watches:
            if watch.path == path and watch.token == token:
                connection.watches.remove(watch)
                return _OK
        raise XsError("ENOENT", f"{path} is not watched with {token!r}")

    def _reset_watches(self, connection: Connection, request: Message) -> bytes:
        connection.watches.clear()
        connection.transactions.clear()
        return _OK

    def _fire(self, tree: Tree) -> None:
        """Tell everyone who watches what `tree` has changed."""
        changed, tree.changed = tree.changed, {}
        for path, is_removed in changed.items():
            for connection in self.connections:
                if not self._may_hear(connection, path):
                    continue
                for watch in connection.watches:
                    if _covers(watch.path, path) and not (
                        is_removed and _heard_above(watch.path, path, changed)
                    ):
                        self._send_event(connection, watch, path)

    def _may_hear(self, connection: Connection, path: str) -> bool:
        """Who may not read a node is not told of it either."""
        while path not in self.nodes:
            path = parent_of(path)
        return self.nodes[path].allows(connection.domid, "r")

    def _fire_special(self, path: str) -> None:
        for connection in self.connections:
            for watch in connection.watches:
                if watch.path == path:
                    self._send_event(connection, watch, path)

    def _send_event(self, connection: Connection, watch: Watch, path: str) -> None:
        if watch.is_relative:
            path = path.removeprefix(f"/local/domain/{connection.domid}/")
        payload = path.encode() + b"\0" + watch.token.encode("latin-1") + b"\0"
        connection.output += Message(XsType.WATCH_EVENT, 0, 0, payload).encode()

    # --- domains
    # ----------------------------------------------------------------------------------------
    def _get_domain_path(self, connection: Connection, request: Message) -> bytes:
        return b"/local/domain/%d\0" % _number(_one(request))

    def _is_domain_introduced(self, connection: Connection, request: Message) -> bytes:
        domid = _number(_one(request))
        known = domid == PRIVILEGED or any(c.domid == domid for c in self.connections)
        return b"T\0" if known else b"F\0"

    def _privileged_only(self, connection: Connection, request: Message) -> bytes:
        if connection.domid != PRIVILEGED:
            raise XsError("EACCES", f"d{connection.domid} may not do that")
        raise XsError("ENOSYS", "domains are introduced by whoever creates them")


_OK: Final = b"OK\0"

_HANDLERS: Final[dict[int, Callable[[Store, Connection, Message], bytes]]] = {
    XsType.CONTROL: Store._privileged_only,
    XsType.DIRECTORY: Store._directory,
    XsType.READ: Store._read,
    XsType.GET_PERMS: Store._get_perms,
    XsType.WATCH: Store._watch,
    XsType.UNWATCH: Store._unwatch,
    XsType.TRANSACTION_START: Store._transaction_start,
    XsType.TRANSACTION_END: Store._transaction_end,
    XsType.INTRODUCE: Store._privileged_only,
    XsType.RELEASE: Store._privileged_only,
    XsType.GET_DOMAIN_PATH: Store._get_domain_path,
    XsType.WRITE: Store._write,
    XsType.MKDIR: Store._mkdir,
    XsType.RM: Store._rm,
    XsType.SET_PERMS: Store._set_perms,
    XsType.IS_DOMAIN_INTRODUCED: Store._is_domain_introduced,
    XsType.RESUME: Store._privileged_only,
    XsType.SET_TARGET: Store._privileged_only,
    XsType.RESET_WATCHES: Store._reset_watches,
    XsType.DIRECTORY_PART: Store._directory_part,
}


def _covers(watched: str, path: str) -> bool:
    """Whether a watch on `watched` hears of `path`."""
    return path == watched or path.startswith(watched if watched == "/" else watched + "/")


def _heard_above(watched: str, path: str, changed: dict[str, bool]) -> bool:
    """Whether the watch hears of a removal higher up already: one event for a removed tree."""
    parent = parent_of(path)
    return changed.get(parent, False) and _covers(watched, parent)


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")


def _one(request: Message) -> str:
    """The only string of a request."""
    return _fields(request, 1)[0]


def _fields(request: Message, count: int) -> list[str]:
    """Zero-terminated strings. Raises XsError(EINVAL) if there are fewer than `count`."""
    if not request.payload.endswith(b"\0"):
        raise XsError("EINVAL", "a string without its terminating zero")
    fields = [_text(raw) for raw in request.payload[:-1].split(b"\0")]
    if len(fields) < count:
        raise XsError("EINVAL", f"{len(fields)} strings, {count} are needed")
    return fields


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise XsError("EINVAL", f"{text[:16]!r} is not a number")
    return int(text)
