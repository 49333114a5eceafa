"""The nodes: names, values, permissions.

A node is immutable; a change puts another one in its place. So a transaction's snapshot is a copy
of the dictionary, and whether a node has changed is whether it is the same object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

MAX_ABSOLUTE_PATH: Final = 3072  # XENSTORE_ABS_PATH_MAX
MAX_RELATIVE_PATH: Final = 2048  # XENSTORE_REL_PATH_MAX
MAX_ENTRY_BYTES: Final = 2048  # quota_max_entry_size
MAX_ENTRIES: Final = 1000  # quota_nb_entry_per_domain
PRIVILEGED: Final = 0  # Domain 0

_NAME: Final = re.compile(r"[A-Za-z0-9\-/_@]+")


class XsError(Exception):
    """A request is refused: `name` goes over the wire, `why` to whoever debugs it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why


@dataclass(frozen=True, slots=True)
class Permission:
    """One entry of a node's list: what `domid` may do. The first names the owner, and its letter is
    everybody else's."""

    letter: str  # n none, r read, w write, b both
    domid: int

    def text(self) -> str:
        """As it goes over the wire."""
        return f"{self.letter}{self.domid}"


@dataclass(frozen=True, slots=True)
class Node:
    """A name's value, permissions and children."""

    value: bytes = b""
    permissions: tuple[Permission, ...] = (Permission("n", PRIVILEGED),)
    children: tuple[str, ...] = ()

    @property
    def owner(self) -> int:
        """Whose node it is."""
        return self.permissions[0].domid

    def allows(self, domid: int, letter: str) -> bool:
        """Whether `domid` may read ("r") or write ("w")."""
        if domid in (PRIVILEGED, self.owner):
            return True
        for entry in self.permissions[1:]:
            if entry.domid == domid:
                return entry.letter in (letter, "b")
        return self.permissions[0].letter in (letter, "b")


Nodes = dict[str, Node]


def parent_of(path: str) -> str:
    """The path one level up; the root's is the root."""
    return path.rpartition("/")[0] or "/"


def child_path(path: str, name: str) -> str:
    """The path of a child."""
    return f"{path}{name}" if path == "/" else f"{path}/{name}"


def absolute(path: str, domid: int) -> str:
    """The full path of what a domain wrote. Raises XsError(EINVAL) for what is no path."""
    limit = MAX_ABSOLUTE_PATH if path.startswith("/") else MAX_RELATIVE_PATH
    if not path or len(path) > limit or not _NAME.fullmatch(path):
        raise XsError("EINVAL", f"{path[:80]!r} is not a path")
    if not path.startswith("/"):
        path = f"/local/domain/{domid}/{path}"
    if "//" in path or (path != "/" and path.endswith("/")):
        raise XsError("EINVAL", f"{path[:80]!r} has an empty name in it")
    return path


def parse_permissions(fields: list[str]) -> tuple[Permission, ...]:
    """Permissions from the wire. Raises XsError(EINVAL)."""
    parsed = []
    for field in fields:
        if not re.fullmatch(r"[nrwb][0-9]{1,5}", field):
            raise XsError("EINVAL", f"{field!r} is not a permission")
        parsed.append(Permission(field[0], int(field[1:])))
    if not parsed:
        raise XsError("EINVAL", "an empty list of permissions")
    return tuple(parsed)


@dataclass(slots=True)
class Tree:
    """A view of the nodes: the store's, or a transaction's. Remembers what was looked at and what
    was changed."""

    nodes: Nodes
    touched: set[str]
    changed: dict[str, bool]  # path -> whether it was removed, in order of the changes

    @classmethod
    def over(cls, nodes: Nodes) -> Tree:
        """A view with nothing remembered."""
        return cls(nodes, set(), {})

    def get(self, path: str) -> Node | None:
        """The node, whatever its permissions."""
        self.touched.add(path)
        return self.nodes.get(path)

    def require(self, path: str, domid: int, letter: str) -> Node:
        """The node, if `domid` may use it so. Raises XsError(ENOENT or EACCES).

        Who may not read a parent is not told whether there is a child.
        """
        node = self.get(path)
        if node is None:
            nearest = self._nearest(path)
            if not nearest.allows(domid, letter):
                raise XsError("EACCES", f"d{domid} may not look for {path}")
            raise XsError("ENOENT", f"{path} does not exist")
        if not node.allows(domid, letter):
            raise XsError("EACCES", f"d{domid} has no {letter!r} permission for {path}")
        return node

    def _nearest(self, path: str) -> Node:
        """The closest node above `path`."""
        while True:
            path = parent_of(path)
            node = self.get(path)
            if node is not None:
                return node

    def _put(self, path: str, node: Node) -> None:
        self.nodes[path] = node

    def write(self, path: str, domid: int, value: bytes) -> None:
        """Set a value, making the node and its parents as needed."""
        if len(value) > MAX_ENTRY_BYTES and domid != PRIVILEGED:
            raise XsError("ENOSPC", f"a value of {len(value)} bytes; at most {MAX_ENTRY_BYTES}")
        node = self.get(path)
        if node is None:
            self._create(path, domid, value)
        else:
            if not node.allows(domid, "w"):
                raise XsError("EACCES", f"d{domid} has no 'w' permission for {path}")
            self._put(path, replace(node, value=value))
        self.changed[path] = False

    def mkdir(self, path: str, domid: int) -> None:
        """Make an empty node; one that exists stays as it is."""
        node = self.get(path)
        if node is not None:
            if not node.allows(domid, "w"):
                raise XsError("EACCES", f"d{domid} has no 'w' permission for {path}")
            return
        self._create(path, domid, b"")
        self.changed[path] = False

    def _create(self, path: str, domid: int, value: bytes) -> None:
        missing = [path]
        while self.get(parent := parent_of(missing[-1])) is None:
            missing.append(parent)
        above = self.nodes[parent]
        if not above.allows(domid, "w"):
            raise XsError("EACCES", f"d{domid} may not make {missing[-1]}")
        self._check_quota(domid, len(missing))
        for at in reversed(missing):
            permissions = above.permissions
            if domid != PRIVILEGED:
                permissions = (Permission(permissions[0].letter, domid), *permissions[1:])
            above = Node(value if at == path else b"", permissions)
            self._put(at, above)
            self._link(at)

    def _check_quota(self, domid: int, more: int) -> None:
        if domid == PRIVILEGED:
            return
        if sum(node.owner == domid for node in self.nodes.values()) + more > MAX_ENTRIES:
            raise XsError("ENOSPC", f"d{domid} owns {MAX_ENTRIES} nodes already")

    def _link(self, path: str) -> None:
        parent = parent_of(path)
        node = self.nodes[parent]
        name = path.rpartition("/")[2]
        self._put(parent, replace(node, children=tuple(sorted((*node.children, name)))))

    def remove(self, path: str, domid: int) -> None:
        """Remove a node and all below; one that does not exist is fine if its parent does."""
        if path == "/":
            raise XsError("EINVAL", "the root cannot be removed")
        node = self.get(path)
        if node is None:
            self.require(parent_of(path), domid, "w")
            return
        if not node.allows(domid, "w"):
            raise XsError("EACCES", f"d{domid} has no 'w' permission for {path}")
        parent = parent_of(path)
        above = self.nodes[parent]
        self.touched.add(parent)
        name = path.rpartition("/")[2]
        self._put(parent, replace(above, children=tuple(c for c in above.children if c != name)))
        self._drop(path)

    def _drop(self, path: str) -> None:
        self.touched.add(path)
        self.changed[path] = True
        for name in self.nodes[path].children:
            self._drop(child_path(path, name))
        del self.nodes[path]

    def set_permissions(self, path: str, domid: int, wanted: tuple[Permission, ...]) -> None:
        """Change who may do what; the owner cannot give the node away."""
        node = self.require(path, domid, "w")
        if domid != PRIVILEGED:
            if node.owner != domid:
                raise XsError("EACCES", f"d{domid} does not own {path}")
            if wanted[0].domid != node.owner:
                raise XsError("EPERM", f"d{domid} may not give {path} to d{wanted[0].domid}")
        self._put(path, replace(node, permissions=wanted))
        self.changed[path] = False
