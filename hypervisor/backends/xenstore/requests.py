"""What can be asked of the store: one function for each type of message.

Each takes the payload apart, calls, and returns the answer's payload; None stands for "OK". The
table says who may ask, and what pays no attention to transactions (wire_funcs in xenstored_core.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from hypervisor.abi.xs_wire import XENSTORE_REL_PATH_MAX, XsType
from hypervisor.backends.xenstore.connection import Connection, Watch
from hypervisor.backends.xenstore.limits import MAX_PAYLOAD, MAX_PERMISSIONS, MAX_WATCHES
from hypervisor.backends.xenstore.nodes import (
    PRIVILEGED,
    XsError,
    absolute,
    home_of,
    parse_permissions,
)
from hypervisor.backends.xenstore.tree import Transaction, Tree
from hypervisor.backends.xenstore.wire import Message

if TYPE_CHECKING:
    from hypervisor.backends.xenstore.store import Store

Handler = Callable[["Store", Connection, Tree, Message], "bytes | Watch | None"]


@dataclass(frozen=True, slots=True)
class Request:
    """A type of message."""

    handler: Handler
    is_privileged: bool = False  # Domain 0's alone; EACCES to others
    ignores_transaction: bool = False


# --- payloads ------------------------------------------------------------------------------------
def _strings(payload: bytes) -> list[bytes]:
    """The zero-terminated strings of a payload; what follows the last zero is nobody's concern."""
    return payload.split(b"\0")[:-1]


def _one(request: Message) -> str:
    """The only string of a request, up to the only zero at its end."""
    payload = request.payload
    if not payload or payload.find(b"\0") != len(payload) - 1:
        raise XsError("EINVAL", "not one string with its terminating zero")
    return payload[:-1].decode("latin-1")


def _two(request: Message) -> tuple[str, bytes]:
    """A path and another string."""
    strings = _strings(request.payload)
    if len(strings) != 2:
        raise XsError("EINVAL", f"{len(strings)} strings instead of two")
    return strings[0].decode("latin-1"), strings[1]


def _number(text: bytes | str) -> int:
    """What C's atoi makes of it: the digits that it starts with, 0 if there are none."""
    raw = text if isinstance(text, bytes) else text.encode("latin-1")
    found = re.match(rb"[ \t\n\v\f\r]*\+?([0-9]{1,9})", raw)
    return int(found[1]) if found else 0


# --- reading -------------------------------------------------------------------------------------
def read(store: Store, connection: Connection, tree: Tree, request: Message) -> bytes:
    """A node's value."""
    path = absolute(_one(request), connection.domid)
    return tree.require(path, connection.domid, "r").value


def directory(store: Store, connection: Connection, tree: Tree, request: Message) -> bytes:
    """A node's children."""
    path = absolute(_one(request), connection.domid)
    return _listed(tree.require(path, connection.domid, "r").children)


def directory_part(store: Store, connection: Connection, tree: Tree, request: Message) -> bytes:
    """Children from a byte of the whole list on, as many as fit; an empty name ends the list.

    The generation in front differs when the list does: it is a hash of it.
    """
    name, offset = _two(request)
    node = tree.require(absolute(name, connection.domid), connection.domid, "r")
    listed = _listed(node.children)
    generation = b"%d\0" % int.from_bytes(blake2b(listed, digest_size=8).digest(), "little")
    start = _number(offset)
    room = MAX_PAYLOAD - len(generation) - 1
    part = listed[start : start + room]
    if start + len(part) >= len(listed):
        return generation + part + b"\0"
    return generation + part[: part.rfind(b"\0") + 1]


def _listed(names: tuple[str, ...]) -> bytes:
    return b"".join(name.encode("latin-1") + b"\0" for name in names)


def get_perms(store: Store, connection: Connection, tree: Tree, request: Message) -> bytes:
    """A node's permissions, the owner's first."""
    path = absolute(_one(request), connection.domid)
    return _listed(
        tuple(entry.text() for entry in tree.require(path, connection.domid, "r").permissions)
    )


# --- changing ------------------------------------------------------------------------------------
def write(store: Store, connection: Connection, tree: Tree, request: Message) -> None:
    """Set a value: all that follows the path's zero, zeros included."""
    name, separator, value = request.payload.partition(b"\0")
    if not separator:
        raise XsError("EINVAL", "a path without its terminating zero")
    tree.write(absolute(name.decode("latin-1"), connection.domid), connection.domid, value)


def mkdir(store: Store, connection: Connection, tree: Tree, request: Message) -> None:
    """Make an empty node, if there is none."""
    tree.mkdir(absolute(_one(request), connection.domid), connection.domid)


def rm(store: Store, connection: Connection, tree: Tree, request: Message) -> None:
    """Remove a node and all below."""
    tree.remove(absolute(_one(request), connection.domid), connection.domid)


def set_perms(store: Store, connection: Connection, tree: Tree, request: Message) -> None:
    """Change who may do what with a node, or who hears of a special event."""
    name, *fields = (raw.decode("latin-1") for raw in _strings(request.payload) or [b""])
    domid = connection.domid
    if not fields:
        raise XsError("EINVAL", "a path and no permissions")
    if domid != PRIVILEGED and len(fields) > MAX_PERMISSIONS:
        raise XsError("ENOSPC", f"{len(fields)} permissions; at most {MAX_PERMISSIONS}")
    wanted = parse_permissions(fields)
    if not name.startswith("@"):
        tree.set_permissions(absolute(name, domid), domid, wanted)
        return
    if name not in store.special:
        raise XsError("EINVAL", f"{name[:40]!r} is no special event")
    if domid not in (PRIVILEGED, store.special[name][0].domid):
        raise XsError("EACCES", f"d{domid} does not own {name}")
    store.special[name] = wanted


# --- transactions --------------------------------------------------------------------------------
def transaction_start(store: Store, connection: Connection, tree: Tree, request: Message) -> bytes:
    """Begin a transaction; the answer is its number."""
    if request.tx_id:
        raise XsError("EBUSY", "a transaction inside a transaction")
    return b"%d\0" % store.start_transaction(connection)


def transaction_end(store: Store, connection: Connection, tree: Tree, request: Message) -> None:
    """Commit (T) or forget (F) a transaction; either way it is over."""
    answer = _one(request)
    if answer not in ("T", "F"):
        raise XsError("EINVAL", f"a transaction ends with T or F, not {answer[:8]!r}")
    if not isinstance(tree, Transaction):
        raise XsError("ENOENT", "no transaction is named")
    del connection.transactions[request.tx_id]
    if answer == "T":
        store.fire(tree.commit())


# --- watches -------------------------------------------------------------------------------------
def watch(store: Store, connection: Connection, tree: Tree, request: Message) -> Watch:
    """Hear of changes from now on; the first event comes at once.

    Special events can be watched by anyone; who may not hear of them does not.
    """
    name, token = _two(request)
    path, base = _watched(name, connection.domid), ""
    if not name.startswith(("/", "@")):
        base = home_of(connection.domid)
    if (path, token) in connection.watches:
        raise XsError("EEXIST", f"{path} is watched with {token!r} already")
    if connection.domid != PRIVILEGED and len(connection.watches) > MAX_WATCHES:
        raise XsError("E2BIG", f"d{connection.domid} has {len(connection.watches)} watches")
    fresh = connection.watches[path, token] = Watch(path, token, base)
    return fresh


def unwatch(store: Store, connection: Connection, tree: Tree, request: Message) -> None:
    """Hear of them no more; events that wait already still come."""
    name, token = _two(request)
    path = _watched(name, connection.domid)
    if connection.watches.pop((path, token), None) is None:
        raise XsError("ENOENT", f"{path} is not watched with {token!r}")


def _watched(name: str, domid: int) -> str:
    if not name.startswith("@"):
        return absolute(name, domid)
    if len(name) > XENSTORE_REL_PATH_MAX:
        raise XsError("EINVAL", f"{name[:80]!r} is too long")
    return name


def reset_watches(store: Store, connection: Connection, tree: Tree, request: Message) -> None:
    """Forget the caller's watches and transactions: a new kernel runs in the domain."""
    connection.forget()


# --- domains -------------------------------------------------------------------------------------
def get_domain_path(store: Store, connection: Connection, tree: Tree, request: Message) -> bytes:
    """Where a domain's home is, whether it exists or not."""
    return home_of(_number(_one(request))).encode() + b"\0"


def is_domain_introduced(
    store: Store, connection: Connection, tree: Tree, request: Message
) -> bytes:
    """Whether the store talks with a domain."""
    domid = _number(_one(request))
    known = domid == PRIVILEGED or any(c.domid == domid for c in store.connections)
    return b"T\0" if known else b"F\0"


def _by_the_machine(store: Store, connection: Connection, tree: Tree, request: Message) -> None:
    """Domains come and go by the machine's own control interface."""
    raise XsError("ENOSYS", f"message type {request.type} is not for the wire here")


REQUESTS: Final[Mapping[int, Request]] = {
    XsType.CONTROL: Request(_by_the_machine, is_privileged=True),
    XsType.DIRECTORY: Request(directory),
    XsType.READ: Request(read),
    XsType.GET_PERMS: Request(get_perms),
    XsType.WATCH: Request(watch, ignores_transaction=True),
    XsType.UNWATCH: Request(unwatch, ignores_transaction=True),
    XsType.TRANSACTION_START: Request(transaction_start),
    XsType.TRANSACTION_END: Request(transaction_end),
    XsType.INTRODUCE: Request(_by_the_machine, is_privileged=True),
    XsType.RELEASE: Request(_by_the_machine, is_privileged=True),
    XsType.GET_DOMAIN_PATH: Request(get_domain_path),
    XsType.WRITE: Request(write),
    XsType.MKDIR: Request(mkdir),
    XsType.RM: Request(rm),
    XsType.SET_PERMS: Request(set_perms),
    XsType.IS_DOMAIN_INTRODUCED: Request(is_domain_introduced, is_privileged=True),
    XsType.RESUME: Request(_by_the_machine, is_privileged=True),
    XsType.SET_TARGET: Request(_by_the_machine, is_privileged=True),
    XsType.RESET_WATCHES: Request(reset_watches),
    XsType.DIRECTORY_PART: Request(directory_part),
}
