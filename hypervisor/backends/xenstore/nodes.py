"""Names, values, permissions: what a node is, and what may be called a path.

A node is immutable; a change puts another one in its place. So whether a node has changed is
whether it is the same object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hypervisor.abi.xs_wire import XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX
from hypervisor.backends.xenstore.limits import NODE_HEAD_BYTES, PERMISSION_BYTES

PRIVILEGED: Final = 0  # Domain 0
MAX_DOMID: Final = 0xFFFF

_PATH: Final = re.compile(r"[A-Za-z0-9\-/_@]+")
_PERMISSION: Final = re.compile(r"[nrwb][0-9]{1,5}")


class XsError(Exception):
    """A request is refused: `name` goes over the wire, `why` to whoever debugs it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why


@dataclass(frozen=True, slots=True)
class Permission:
    """One entry of a node's list: what `domid` may do.

    The first entry names the owner, who may do anything; its letter is for all who are not listed.
    """

    letter: str  # n none, r read, w write, b both
    domid: int

    def text(self) -> str:
        """As it goes over the wire."""
        return f"{self.letter}{self.domid}"


Permissions = tuple[Permission, ...]


def allows(permissions: Permissions, domid: int, letter: str) -> bool:
    """Whether `domid` may read ("r") or write ("w") what has these permissions."""
    if domid in (PRIVILEGED, permissions[0].domid):
        return True
    for entry in permissions[1:]:
        if entry.domid == domid:
            return entry.letter in (letter, "b")
    return permissions[0].letter in (letter, "b")


def parse_permissions(fields: list[str]) -> Permissions:
    """Permissions from the wire. Raises XsError(EINVAL)."""
    for field in fields:
        if not _PERMISSION.fullmatch(field) or int(field[1:]) > MAX_DOMID:
            raise XsError("EINVAL", f"{field[:16]!r} is not a permission")
    return tuple(Permission(field[0], int(field[1:])) for field in fields)


@dataclass(frozen=True, slots=True)
class Node:
    """A name's value, permissions and children, these in the order of their creation."""

    value: bytes = b""
    permissions: Permissions = (Permission("n", PRIVILEGED),)
    children: tuple[str, ...] = ()

    @property
    def owner(self) -> int:
        """Whose node it is."""
        return self.permissions[0].domid

    def allows(self, domid: int, letter: str) -> bool:
        """Whether `domid` may read ("r") or write ("w") it."""
        return allows(self.permissions, domid, letter)

    @property
    def size_bytes(self) -> int:
        """What it counts for, as xenstored stores it."""
        names = sum(map(len, self.children)) + len(self.children)
        head = NODE_HEAD_BYTES + PERMISSION_BYTES * len(self.permissions)
        return head + len(self.value) + names


# --- paths ---------------------------------------------------------------------------------------
def parent_of(path: str) -> str:
    """The path one level up; the root's is the root."""
    return path.rpartition("/")[0] or "/"


def name_of(path: str) -> str:
    """The last name of a path."""
    return path.rpartition("/")[2]


def child_path(path: str, name: str) -> str:
    """The path of a child."""
    return f"{path}{name}" if path == "/" else f"{path}/{name}"


def home_of(domid: int) -> str:
    """What a domain's relative paths are relative to."""
    return f"/local/domain/{domid}"


def is_below(path: str, top: str) -> bool:
    """Whether `path` is `top` or something below it."""
    return path == top or path.startswith(top if top == "/" else top + "/")


def absolute(path: str, domid: int) -> str:
    """The full path of what a domain wrote. Raises XsError(EINVAL) for what is no path."""
    limit = XENSTORE_ABS_PATH_MAX if path.startswith("/") else XENSTORE_REL_PATH_MAX
    if len(path) > limit or not _PATH.fullmatch(path) or path.startswith("@"):
        raise XsError("EINVAL", f"{path[:80]!r} is not a path")
    if not path.startswith("/"):
        path = f"{home_of(domid)}/{path}"
    if "//" in path or (path != "/" and path.endswith("/")):
        raise XsError("EINVAL", f"{path[:80]!r} has an empty name in it")
    return path
