"""One domain cannot use up the store, nor the machine's memory, whatever it asks for or leaves."""

from __future__ import annotations

import pytest

from hypervisor.abi.xs_wire import XsType
from hypervisor.backends.xenstore import Store
from hypervisor.backends.xenstore.limits import (
    MAX_NODE_BYTES,
    MAX_NODES,
    MAX_OUTSTANDING,
    MAX_QUEUED_BYTES,
    MAX_TRANSACTION_NODES,
    MAX_TRANSACTIONS,
    MAX_WATCHES,
)
from hypervisor.backends.xenstore.wire import Message
from tests.support.xenstore_client import OK, Client, domu, everything


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def guest(store: Store) -> Client:
    return domu(store, 5)


def fill(guest: Client, count: int, tx: int = 0) -> None:
    """Let `guest` own `count` nodes more, ten in a directory."""
    for number in range(count):
        path = f"data/{number // 10}" + (f"/{number}" if number % 10 else "")
        assert guest.mkdir(path, tx=tx) == OK


# --- nodes ---------------------------------------------------------------------------------------
def test_a_domain_owns_so_many_nodes_and_no_more(store: Store, guest: Client) -> None:
    fill(guest, MAX_NODES - 1 - store.owned[5] + 1)
    assert store.owned[5] == MAX_NODES
    assert guest.mkdir("data/0/more") == "ENOSPC"
    assert guest.write("data/x/y", "x") == "ENOSPC"
    assert guest.read("data/x") == "ENOENT"
    assert guest.rm("data/0/1") == OK
    assert guest.mkdir("data/0/more") == OK


def test_the_count_of_nodes_is_what_the_tree_holds(store: Store, guest: Client) -> None:
    fill(guest, 35)
    guest.rm("data/1")
    tx = guest.start()
    guest.mkdir("data/new/one", tx=tx)
    guest.rm("data/2", tx=tx)
    guest.end(tx)
    held = sum(node.owner == 5 for node in store.nodes.values())
    assert store.owned[5] == held
    assert store.owned[0] == len(store.nodes) - held


def test_a_transaction_counts_what_it_makes(store: Store, guest: Client) -> None:
    fill(guest, MAX_NODES - 20)
    tx = guest.start()
    assert guest.write("data/0/" + "/".join("abcdefghijklmnopqrs"), "x", tx=tx) == OK
    assert guest.mkdir("data/0/t", tx=tx) == "ENOSPC"
    assert guest.end(tx) == OK
    assert store.owned[5] == MAX_NODES


def test_transactions_together_stay_within_the_limit(store: Store, guest: Client) -> None:
    fill(guest, 500)
    first, second = guest.start(), guest.start()
    for number in range(300):
        guest.mkdir(f"data/{number // 10}/first{number}", tx=first)
        guest.mkdir(f"data/{20 + number // 10}/second{number}", tx=second)
    assert guest.end(first) == OK
    assert guest.end(second) in ("ENOSPC", "EAGAIN")
    assert store.owned[5] <= MAX_NODES


def test_a_commit_that_would_exceed_the_limit_is_refused(store: Store, guest: Client) -> None:
    guest.mkdir("data/mine")
    fill(guest, MAX_NODES - 12)
    tx = guest.start()
    assert guest.write("data/mine/a/b/c/d/e", "x", tx=tx) == OK
    for number in range(8):
        guest.mkdir(f"data/0/late{number}")
    assert guest.end(tx) == "ENOSPC"
    assert guest.directory("data/mine") == b""


def test_a_node_has_a_greatest_size(guest: Client) -> None:
    room = MAX_NODE_BYTES - 24 - 8 - 1
    assert guest.write("data/a", b"x" * room) == OK
    assert guest.write("data/a", b"x" * (room + 1)) == "ENOSPC"
    assert guest.write("data/b", b"x" * (room + 1)) == "ENOSPC"
    assert guest.read("data/b") == "ENOENT"
    assert guest.ask(XsType.SET_PERMS, "data/a", "n5", "r6") == "ENOSPC"


def test_the_names_of_children_count_for_their_parent(guest: Client) -> None:
    assert guest.mkdir("data/" + "a" * 1000) == OK
    assert guest.mkdir("data/" + "b" * 1000) == OK
    assert guest.mkdir("data/" + "c" * 1000) == "ENOSPC"
    assert guest.read("data/" + "c" * 1000) == "ENOENT"


def test_a_node_has_so_many_permissions(guest: Client) -> None:
    guest.mkdir("data/a")
    some = ["n5", "r1", "r2", "r3", "r4"]
    assert guest.ask(XsType.SET_PERMS, "data/a", *some) == OK
    assert guest.ask(XsType.SET_PERMS, "data/a", *some, "r6") == "ENOSPC"


def test_domain_0_has_no_limits(store: Store) -> None:
    dom0 = Client(store, 0)
    for number in range(MAX_NODES + 1):
        assert dom0.mkdir(f"/many/{number}") == OK
    assert dom0.write("/many/0", b"x" * 4000) == OK
    for number in range(MAX_WATCHES + 2):
        assert dom0.watch("/many", str(number)) == OK
    for _ in range(MAX_TRANSACTIONS + 2):
        dom0.start()


# --- watches, transactions -----------------------------------------------------------------------
def test_a_domain_has_so_many_watches(guest: Client) -> None:
    for number in range(MAX_WATCHES + 1):
        assert guest.watch("data", str(number)) == OK
    assert guest.watch("data", "more") == "E2BIG"
    assert guest.ask(XsType.UNWATCH, "data", "0") == OK
    assert guest.watch("data", "more") == OK


def test_a_domain_has_so_many_transactions(guest: Client) -> None:
    running = [guest.start() for _ in range(MAX_TRANSACTIONS + 1)]
    assert guest.ask(XsType.TRANSACTION_START, "") == "ENOSPC"
    guest.end(running[0], "F")
    assert guest.start()


def test_a_transaction_looks_at_so_many_nodes(guest: Client) -> None:
    tx = guest.start()
    answers = [guest.read(f"data/{number}", tx=tx) for number in range(MAX_TRANSACTION_NODES + 1)]
    assert "ENOSPC" in answers
    assert len(guest.connection.transactions[tx].seen) == MAX_TRANSACTION_NODES
    assert guest.end(tx) == "ENOMEM"
    assert guest.read("data/0") == "ENOENT"


def test_changing_one_node_again_and_again_takes_no_more_room(guest: Client) -> None:
    tx = guest.start()
    for number in range(200):
        guest.write("data/a", str(number), tx=tx)
        guest.ask(XsType.SET_PERMS, "data/a", "n5", f"r{number}", tx=tx)
    transaction = guest.connection.transactions[tx]
    assert len(transaction.changes) == 1
    assert all(len(readers) <= 4 for readers in transaction.changes.values())
    assert len(transaction.mine) <= 2


# --- what a domain does not take -----------------------------------------------------------------
def test_a_domain_that_takes_no_answers_is_not_read(store: Store, guest: Client) -> None:
    request = Message(XsType.READ, 1, 0, b"name\0").encode()
    store.receive(guest.connection, request * 100)
    assert guest.connection.is_stalled
    assert guest.connection.nr_replies == MAX_OUTSTANDING
    assert len(everything(guest.connection)) == MAX_OUTSTANDING
    store.receive(guest.connection, b"")
    assert len(everything(guest.connection)) == MAX_OUTSTANDING


def test_an_event_that_waits_already_is_not_sent_twice(store: Store, guest: Client) -> None:
    guest.watch("data", "t")
    guest.heard()
    for number in range(1000):
        store.write("/local/domain/5/data/a", str(number))
    assert guest.heard() == [("data/a", "t")]
    store.write("/local/domain/5/data/a", "again")
    assert guest.heard() == [("data/a", "t")]


def test_an_event_that_has_begun_to_arrive_still_counts_as_waiting(
    store: Store, guest: Client
) -> None:
    guest.watch("data", "t")
    guest.heard()
    store.write("/local/domain/5/data", "1")
    guest.connection.sent(3)
    store.write("/local/domain/5/data", "2")
    rest = guest.connection.peek(10_000)
    guest.connection.sent(len(rest))
    assert len(rest) == 16 + len("data\0t\0") - 3
    store.write("/local/domain/5/data", "3")
    assert guest.heard() == [("data", "t")]


def test_a_storm_of_events_is_cut_off(store: Store, guest: Client) -> None:
    for number in range(MAX_WATCHES + 1):
        guest.watch("data", f"{number:03}" + "x" * 1500)
    guest.heard()
    for number in range(30):
        store.write(f"/local/domain/5/data/{number}", "x")
    connection = guest.connection
    assert MAX_QUEUED_BYTES - 2000 < connection.queued_bytes <= MAX_QUEUED_BYTES
    assert connection.nr_events_lost > 0
    assert len(connection.waiting) == len(connection.queue)
    guest.heard()
    assert connection.queued_bytes == 0
    assert not connection.waiting
    store.write("/local/domain/5/data/0", "x")
    assert len(guest.heard()) == MAX_WATCHES + 1


def test_an_event_too_long_for_a_message_is_not_sent(store: Store, guest: Client) -> None:
    long = "a" * 2000
    guest.watch("data", "t" * 2500)
    guest.heard()
    guest.mkdir(f"data/{long}")
    assert guest.heard() == []


def test_what_waits_is_given_in_pieces_of_any_size(store: Store, guest: Client) -> None:
    for number in range(3):
        request = Message(XsType.READ, number, 0, b"name\0").encode()
        store.receive(guest.connection, request)
    whole = guest.connection.peek(10_000)
    pieces = b""
    while piece := guest.connection.peek(7):
        pieces += piece
        guest.connection.sent(len(piece))
    assert pieces == whole
    assert guest.connection.nr_replies == 0
