"""Views of the nodes: the store itself, and a transaction's private version of it.

Operations check everything first and then change, so a refusal leaves no trace. Both views offer
the same operations and differ in `get` and `put` alone. A transaction copies nothing when it
starts: it remembers each node as it first saw it, keeps its changes to itself, and can be committed
while everything that it has seen is still so (xenstored_transaction.c).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from hypervisor.backends.xenstore.limits import (
    MAX_NODE_BYTES,
    MAX_NODES,
    MAX_TRANSACTION_NODES,
)
from hypervisor.backends.xenstore.nodes import (
    PRIVILEGED,
    Node,
    Permission,
    Permissions,
    XsError,
    child_path,
    name_of,
    parent_of,
)

Nodes = dict[str, Node]


#: What watches have to be told of: (path, is_exact), and what has to be readable to hear of it, one
#: of these lists. Exact are nodes that went with what was above them: only watches on this very
#: path hear of those.
Changes = dict[tuple[str, bool], tuple[Permissions, ...]]


@dataclass(slots=True)
class Tree:
    """The nodes, and how many each domain owns."""

    nodes: Nodes
    owned: Counter[int]
    changes: Changes = field(default_factory=dict)  # not told to anybody yet

    # --- what a transaction does otherwise -------------------------------------------------------
    def get(self, path: str) -> Node | None:
        """The node, whatever its permissions."""
        return self.nodes.get(path)

    def put(self, path: str, node: Node | None) -> None:
        """Put `node` in place of what is there; None removes it."""
        self._count(self.nodes.get(path), node)
        if node is None:
            del self.nodes[path]
        else:
            self.nodes[path] = node

    def nr_owned(self, domid: int) -> int:
        """How many nodes `domid` owns."""
        return self.owned[domid]

    def _count(self, before: Node | None, after: Node | None) -> None:
        if before is not None:
            self.owned[before.owner] -= 1
            if not self.owned[before.owner]:
                del self.owned[before.owner]  # most likely a domain that is gone
        if after is not None:
            self.owned[after.owner] += 1

    # --- looking ----------------------------------------------------------------------------------
    def require(self, path: str, domid: int, letter: str) -> Node:
        """The node, if `domid` may use it so. Raises XsError(ENOENT or EACCES).

        Who may not use the nearest node above is not told whether there is one below.
        """
        node = self.get(path)
        if node is None:
            _, nearest = self._nearest(path)
            if not nearest.allows(domid, letter):
                raise XsError("EACCES", f"d{domid} may not look for {path}")
            raise XsError("ENOENT", f"{path} does not exist")
        if not node.allows(domid, letter):
            raise XsError("EACCES", f"d{domid} has no {letter!r} permission for {path}")
        return node

    def _nearest(self, path: str) -> tuple[str, Node]:
        """The closest node above `path`; the root is always there."""
        while True:
            path = parent_of(path)
            node = self.get(path)
            if node is not None:
                return path, node

    # --- changing ---------------------------------------------------------------------------------
    def write(self, path: str, domid: int, value: bytes) -> None:
        """Set a value, making the node and its parents as needed."""
        node = self.get(path)
        if node is None:
            self._create(path, domid, value)
            return
        self.require(path, domid, "w")
        after = replace(node, value=value)
        _check_size(path, after, domid)
        self.put(path, after)
        self._changed(path, node.permissions)

    def mkdir(self, path: str, domid: int) -> None:
        """Make an empty node; one that exists stays as it is."""
        if self.get(path) is None:
            self._create(path, domid, b"")
        else:
            self.require(path, domid, "w")

    def _create(self, path: str, domid: int, value: bytes) -> None:
        """Make `path` and what is missing above it; new nodes inherit permissions."""
        top, above = self._nearest(path)
        if not above.allows(domid, "w"):
            raise XsError("EACCES", f"d{domid} may not make {path}")
        permissions = above.permissions
        if domid != PRIVILEGED:
            permissions = (Permission(permissions[0].letter, domid), *permissions[1:])
        names = path.removeprefix(top).strip("/").split("/")
        fresh = [(top, replace(above, children=(*above.children, names[0])))]
        for name, child in zip(names, [*names[1:], None], strict=True):
            children = () if child is None else (child,)
            node = Node(b"" if child else value, permissions, children)
            fresh.append((child_path(fresh[-1][0], name), node))
        self._check_count(domid, len(names))
        for at, node in fresh:
            _check_size(at, node, domid)
        for at, node in fresh:
            self.put(at, node)
        self._changed(path, permissions)

    def _check_count(self, domid: int, more: int) -> None:
        if domid != PRIVILEGED and self.nr_owned(domid) + more > MAX_NODES:
            raise XsError("ENOSPC", f"d{domid} would own more than {MAX_NODES} nodes")

    def remove(self, path: str, domid: int) -> None:
        """Remove a node and all below; one that does not exist is fine if its parent does."""
        if self.get(path) is None:
            _, nearest = self._nearest(path)
            if not nearest.allows(domid, "w"):
                raise XsError("EACCES", f"d{domid} may not look for {path}")
            if self.get(parent_of(path)) is None:
                raise XsError("ENOENT", f"{parent_of(path)} does not exist")
            return
        node = self.require(path, domid, "w")
        if path == "/":
            raise XsError("EINVAL", "the root cannot be removed")
        going = self._below(path, node)
        parent = self._require_parent(path)
        for at, gone in going:
            is_top = at == path
            above = parent if is_top else self._require_parent(at)
            self._note(at, gone.permissions, above.permissions, is_exact=not is_top)
        for at, _ in reversed(going):
            self.put(at, None)
        kept = tuple(name for name in parent.children if name != name_of(path))
        self.put(parent_of(path), replace(parent, children=kept))

    def _below(self, path: str, node: Node) -> list[tuple[str, Node]]:
        """`path` and all below it, parents first. No recursion: a guest chooses the depth."""
        found = [(path, node)]
        for at, above in found:
            for name in above.children:
                below = self.get(child_path(at, name))
                assert below is not None, f"{at} lists {name}, which does not exist"
                found.append((child_path(at, name), below))
        return found

    def _require_parent(self, path: str) -> Node:
        parent = self.get(parent_of(path))
        assert parent is not None, f"{path} has no parent"
        return parent

    def set_permissions(self, path: str, domid: int, wanted: Permissions) -> None:
        """Change who may do what. Only the owner can, and cannot give the node away."""
        node = self.require(path, domid, "w")
        if domid != PRIVILEGED:
            if node.owner != domid:
                raise XsError("EACCES", f"d{domid} does not own {path}")
            if wanted[0].domid != domid:
                raise XsError("EPERM", f"d{domid} may not give {path} to d{wanted[0].domid}")
        after = replace(node, permissions=wanted)
        _check_size(path, after, domid)
        self.put(path, after)
        self._changed(path, node.permissions, wanted)

    def _changed(self, path: str, *readers: Permissions) -> None:
        self._note(path, *readers, self._require_parent(path).permissions)

    def _note(self, path: str, *readers: Permissions, is_exact: bool = False) -> None:
        """One entry for a path, however often it changes: who could read it before, and who can."""
        before = self.changes.get((path, is_exact), ())[:1]
        self.changes[path, is_exact] = (*before, *readers)


def _check_size(path: str, node: Node, domid: int) -> None:
    if domid != PRIVILEGED and node.size_bytes >= MAX_NODE_BYTES:
        raise XsError("ENOSPC", f"{path} would take {node.size_bytes} bytes of {MAX_NODE_BYTES}")


@dataclass(slots=True)
class Transaction(Tree):
    """A private version of the tree, for `domid`."""

    domid: int = PRIVILEGED
    seen: dict[str, Node | None] = field(default_factory=dict)  # as first looked at
    mine: dict[str, Node | None] = field(default_factory=dict)  # changed here; None: removed
    gained: Counter[int] = field(default_factory=Counter)  # nodes, by owner
    has_failed: bool = False  # a change was refused half-way: never to be committed

    def get(self, path: str) -> Node | None:
        """The node as this transaction has it."""
        if path in self.mine:
            return self.mine[path]
        if path not in self.seen:
            if self.domid != PRIVILEGED and len(self.seen) >= MAX_TRANSACTION_NODES:
                self.has_failed = True
                raise XsError("ENOSPC", f"a transaction of more than {MAX_TRANSACTION_NODES} nodes")
            self.seen[path] = self._first_look(path)
        return self.seen[path]

    def _first_look(self, path: str) -> Node | None:
        """The node as it is now, unless what was looked at before says otherwise.

        Others go on changing the tree. What they have made below a node that was seen without it
        does not exist here; what they have removed, though it was seen listed, cannot be had any
        more: that, like the former at its end, makes the transaction one to be tried again.
        """
        below, above = path, path
        while above != "/":
            below, above = above, parent_of(above)
            if above not in self.mine and above not in self.seen:
                continue
            known = self.mine[above] if above in self.mine else self.seen[above]
            if known is None or name_of(below) not in known.children:
                return None
            if below == path and path not in self.nodes:
                raise XsError("EAGAIN", f"{path} was removed by somebody else")
            break
        return self.nodes.get(path)

    def put(self, path: str, node: Node | None) -> None:
        """Change the private version only."""
        self._count(self.get(path), node)
        self.mine[path] = node

    def nr_owned(self, domid: int) -> int:
        """How many nodes `domid` would own."""
        return self.owned[domid] + self.gained[domid]

    def _count(self, before: Node | None, after: Node | None) -> None:
        if before is not None:
            self.gained[before.owner] -= 1
        if after is not None:
            self.gained[after.owner] += 1

    def commit(self) -> Changes:
        """Make all changes at once, and say what watches have to be told.

        Raises XsError: EAGAIN if what it has seen is no longer so, ENOSPC if with what others have
        made meanwhile there are too many nodes, ENOMEM if it has failed before.
        """
        if self.has_failed:
            raise XsError("ENOMEM", "a change of this transaction was refused half-way")
        for path, node in self.seen.items():
            if self.nodes.get(path) is not node:
                raise XsError("EAGAIN", f"{path} was changed by somebody else")
        for domid, gain in self.gained.items():
            if gain > 0 and domid != PRIVILEGED and self.nr_owned(domid) > MAX_NODES:
                raise XsError("ENOSPC", f"d{domid} would own more than {MAX_NODES} nodes")
        store = Tree(self.nodes, self.owned)
        for path, node in self.mine.items():
            if node is not None or path in self.nodes:
                store.put(path, node)
        return self.changes
