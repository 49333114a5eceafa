"""The store against a small model: a dictionary of paths.

Every answer of the store must be the model's. Transactions are judged by what they promise: if one
is committed, doing its requests one after the other at that moment gives the same answers and the
same tree; if it is refused, somebody else has changed something since it began, and nothing has
happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hypervisor.abi.xs_wire import XsType
from hypervisor.backends.xenstore import Store
from hypervisor.backends.xenstore.nodes import child_path, parent_of
from tests.support.xenstore_client import OK, Client

Perms = list[tuple[str, int]]
Answer = bytes | str


@dataclass
class Model:
    """Paths, in the order of their creation, with value and permissions."""

    nodes: dict[str, tuple[bytes, Perms]] = field(default_factory=dict)

    def may(self, path: str, domid: int, letter: str) -> bool:
        perms = self.nodes[path][1]
        if domid in (0, perms[0][1]):
            return True
        listed = {who: what for what, who in reversed(perms[1:])}
        return listed.get(domid, perms[0][0]) in (letter, "b")

    def nearest(self, path: str) -> str:
        while path not in self.nodes:
            path = parent_of(path)
        return path

    def refusal(self, path: str, domid: int, letter: str) -> str | None:
        if not self.may(self.nearest(path), domid, letter):
            return "EACCES"
        return None if path in self.nodes else "ENOENT"

    def children(self, path: str) -> list[str]:
        return [
            other.rpartition("/")[2]
            for other in self.nodes
            if other != "/" and parent_of(other) == path
        ]

    # --- requests ---------------------------------------------------------------------------------
    def read(self, path: str, domid: int) -> Answer:
        return self.refusal(path, domid, "r") or self.nodes[path][0]

    def directory(self, path: str, domid: int) -> Answer:
        listed = "".join(f"{name}\0" for name in self.children(path)).encode()
        return self.refusal(path, domid, "r") or listed

    def get_perms(self, path: str, domid: int) -> Answer:
        if refusal := self.refusal(path, domid, "r"):
            return refusal
        return "".join(f"{what}{who}\0" for what, who in self.nodes[path][1]).encode()

    def write(self, path: str, domid: int, value: bytes) -> Answer:
        refusal = self.refusal(path, domid, "w")
        if refusal == "EACCES":
            return refusal
        self.make(path, domid)
        self.nodes[path] = (value, self.nodes[path][1])
        return OK

    def mkdir(self, path: str, domid: int) -> Answer:
        refusal = self.refusal(path, domid, "w")
        if refusal == "EACCES":
            return refusal
        self.make(path, domid)
        return OK

    def make(self, path: str, domid: int) -> None:
        above = self.nearest(path)
        for name in path.removeprefix(above).strip("/").split("/") if path != above else ():
            perms = list(self.nodes[above][1])
            if domid:
                perms[0] = (perms[0][0], domid)
            above = child_path(above, name)
            self.nodes[above] = (b"", perms)

    def rm(self, path: str, domid: int) -> Answer:
        refusal = self.refusal(path, domid, "w")
        if refusal == "ENOENT":
            return OK if parent_of(path) in self.nodes else refusal
        if refusal:
            return refusal
        for other in [p for p in self.nodes if p == path or p.startswith(path + "/")]:
            del self.nodes[other]
        return OK

    def set_perms(self, path: str, domid: int, perms: Perms) -> Answer:
        if refusal := self.refusal(path, domid, "w"):
            return refusal
        value, old = self.nodes[path]
        if domid and old[0][1] != domid:
            return "EACCES"
        if domid and perms[0][1] != domid:
            return "EPERM"
        self.nodes[path] = (value, perms)
        return OK


@dataclass
class Running:
    """A transaction: what was asked in it and answered, and the tree's version when it began."""

    client: Client
    number: int
    began_at: int
    asked: list[tuple[str, tuple[Any, ...], Answer]] = field(default_factory=list)


DOMIDS = (0, 5, 6)
names = st.sampled_from("abc")
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/top/" + "/".join(parts))
perms = st.lists(
    st.tuples(st.sampled_from("nrwb"), st.sampled_from([0, 5, 6, 7])), min_size=1, max_size=3
)
requests = st.one_of(
    st.tuples(st.sampled_from(["read", "directory", "get_perms", "mkdir", "rm"]), paths),
    st.tuples(st.just("write"), paths, st.binary(max_size=3)),
    st.tuples(st.just("set_perms"), paths, perms),
)
CHANGING = {"write", "mkdir", "rm", "set_perms"}

SEND: dict[str, Callable[..., Answer]] = {
    "read": lambda client, tx, path: client.read(path, tx=tx),
    "directory": lambda client, tx, path: client.directory(path, tx=tx),
    "get_perms": lambda client, tx, path: client.ask(XsType.GET_PERMS, path, tx=tx),
    "mkdir": lambda client, tx, path: client.mkdir(path, tx=tx),
    "rm": lambda client, tx, path: client.rm(path, tx=tx),
    "write": lambda client, tx, path, value: client.write(path, value, tx=tx),
    "set_perms": lambda client, tx, path, perms: client.ask(
        XsType.SET_PERMS, path, *(f"{what}{who}" for what, who in perms), tx=tx
    ),
}


class StoreMachine(RuleBasedStateMachine):
    """Two guests and Domain 0, and their transactions."""

    @initialize()
    def begin(self) -> None:
        self.store = Store()
        self.store.write("/top", "")
        self.store.set_permissions("/top", ("b", 0))
        self.clients = {domid: Client(self.store, domid) for domid in DOMIDS}
        self.model = Model({path: (node.value, []) for path, node in self.store.nodes.items()})
        for path, node in self.store.nodes.items():
            listed = [(entry.letter, entry.domid) for entry in node.permissions]
            self.model.nodes[path] = (node.value, listed)
        self.running: list[Running] = []
        self.version = 0

    def expect(self, domid: int, name: str, arguments: tuple[Any, ...]) -> Answer:
        path, *rest = arguments
        answer: Answer = getattr(self.model, name)(path, domid, *rest)
        return answer

    @rule(domid=st.sampled_from(DOMIDS), request=requests)
    def ask(self, domid: int, request: tuple[Any, ...]) -> None:
        name, *arguments = request
        answer = SEND[name](self.clients[domid], 0, *arguments)
        assert answer == self.expect(domid, name, tuple(arguments))
        self.version += name in CHANGING and answer == OK

    @rule(domid=st.sampled_from(DOMIDS))
    def start(self, domid: int) -> None:
        if len(self.running) < 4:
            client = self.clients[domid]
            self.running.append(Running(client, client.start(), self.version))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), request=requests)
    def ask_inside(self, which: int, request: tuple[Any, ...]) -> None:
        transaction = self.running[which % len(self.running)]
        name, *arguments = request
        answer = SEND[name](transaction.client, transaction.number, *arguments)
        transaction.asked.append((name, tuple(arguments), answer))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), commits=st.booleans())
    def end(self, which: int, commits: bool) -> None:
        transaction = self.running.pop(which % len(self.running))
        answer = transaction.client.end(transaction.number, "T" if commits else "F")
        if not commits:
            assert answer == OK
        elif answer == OK:
            for name, arguments, then in transaction.asked:
                assert self.expect(transaction.client.domid, name, arguments) == then
                self.version += name in CHANGING and then == OK
        else:
            assert answer == "EAGAIN"
            assert self.version > transaction.began_at

    @invariant()
    def the_tree_is_the_models(self) -> None:
        found = {
            path: (node.value, [(entry.letter, entry.domid) for entry in node.permissions])
            for path, node in self.store.nodes.items()
        }
        assert found == self.model.nodes
        for path, node in self.store.nodes.items():
            assert list(node.children) == self.model.children(path)

    @invariant()
    def owners_are_counted_right(self) -> None:
        held = Counter(node.owner for node in self.store.nodes.values())
        assert {domid: count for domid, count in self.store.owned.items() if count} == dict(held)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=40, stateful_step_count=40)
