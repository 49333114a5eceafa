"""A transaction sees one version of the tree, and happens as a whole or not at all."""

from __future__ import annotations

import pickle

import pytest

from hypervisor.abi.xs_wire import XsType
from hypervisor.backends.xenstore import Store
from tests.support.xenstore_client import OK, Client, domu


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def guest(store: Store) -> Client:
    client = domu(store, 5)
    client.write("data/a", "old")
    client.write("data/b", "old")
    return client


def test_nobody_sees_a_change_before_it_is_committed(guest: Client) -> None:
    tx = guest.start()
    guest.write("data/a", "new", tx=tx)
    guest.mkdir("data/c", tx=tx)
    guest.rm("data/b", tx=tx)
    assert guest.read("data/a", tx=tx) == b"new"
    assert guest.directory("data", tx=tx) == b"a\0c\0"
    assert guest.read("data/a") == b"old"
    assert guest.directory("data") == b"a\0b\0"
    assert guest.end(tx) == OK
    assert guest.read("data/a") == b"new"
    assert guest.directory("data") == b"a\0c\0"


def test_what_is_given_up_leaves_nothing(guest: Client) -> None:
    tx = guest.start()
    guest.write("data/a", "new", tx=tx)
    guest.write("data/c/d", "new", tx=tx)
    assert guest.end(tx, "F") == OK
    assert guest.read("data/a") == b"old"
    assert guest.read("data/c") == "ENOENT"


@pytest.mark.parametrize("action", ["read", "write", "directory", "missing"])
def test_a_change_of_what_was_looked_at_means_again(guest: Client, action: str) -> None:
    tx = guest.start()
    match action:
        case "read":
            guest.read("data/a", tx=tx)
        case "write":
            guest.write("data/a", "mine", tx=tx)
        case "directory":
            guest.directory("data/a", tx=tx)
        case _:
            assert guest.read("data/a/new", tx=tx) == "ENOENT"
    guest.write("data/a/new", "theirs") if action == "missing" else guest.write("data/a", "x")
    assert guest.end(tx) == "EAGAIN"
    assert guest.end(tx) == "ENOENT"
    assert guest.read("data/a") == (b"old" if action == "missing" else b"x")


def test_what_was_looked_at_stays_as_it_was_inside(guest: Client) -> None:
    tx = guest.start()
    assert guest.read("data/a", tx=tx) == b"old"
    guest.write("data/a", "new")
    assert guest.read("data/a", tx=tx) == b"old"
    assert guest.end(tx) == "EAGAIN"


def test_writing_the_same_value_is_a_change(guest: Client) -> None:
    tx = guest.start()
    guest.read("data/a", tx=tx)
    guest.write("data/a", "old")
    assert guest.end(tx) == "EAGAIN"


def test_a_change_elsewhere_is_no_conflict(guest: Client) -> None:
    tx = guest.start()
    guest.write("data/a", "mine", tx=tx)
    guest.write("data/b", "theirs")
    assert guest.end(tx) == OK
    assert guest.read("data/a") == b"mine"
    assert guest.read("data/b") == b"theirs"


def test_two_new_children_of_one_node_conflict(guest: Client) -> None:
    tx = guest.start()
    guest.mkdir("data/mine", tx=tx)
    guest.mkdir("data/theirs")
    assert guest.end(tx) == "EAGAIN"


def test_of_two_transactions_on_one_node_the_second_has_to_try_again(guest: Client) -> None:
    one, two = guest.start(), guest.start()
    assert one != two
    guest.write("data/a", "one", tx=one)
    guest.write("data/a", "two", tx=two)
    assert guest.end(one) == OK
    assert guest.end(two) == "EAGAIN"
    assert guest.read("data/a") == b"one"


def test_a_node_removed_and_made_again_is_another(guest: Client) -> None:
    tx = guest.start()
    guest.read("data/a", tx=tx)
    guest.rm("data/a")
    guest.write("data/a", "old")
    assert guest.end(tx) == "EAGAIN"


def test_what_is_made_and_removed_inside_was_never_there(guest: Client) -> None:
    tx = guest.start()
    guest.write("data/c/d", "x", tx=tx)
    guest.rm("data/c", tx=tx)
    assert guest.end(tx) == OK
    assert guest.directory("data") == b"a\0b\0"


def test_watches_hear_of_a_transaction_when_it_is_committed(guest: Client) -> None:
    guest.watch("data", "t")
    guest.heard()
    tx = guest.start()
    guest.write("data/a", "1", tx=tx)
    guest.write("data/a", "2", tx=tx)
    guest.write("data/c", "3", tx=tx)
    assert guest.heard() == []
    guest.end(tx)
    assert guest.heard() == [("data/a", "t"), ("data/c", "t")]


def test_who_could_read_before_a_transaction_hears_of_it(store: Store, guest: Client) -> None:
    other = domu(store, 6)
    guest.ask(XsType.SET_PERMS, "data/a", "n5", "r6")
    other.watch("/local/domain/5/data/a", "t")
    other.heard()
    tx = guest.start()
    guest.ask(XsType.SET_PERMS, "data/a", "n5", tx=tx)
    guest.write("data/a", "secret", tx=tx)
    guest.end(tx)
    assert other.heard() == [("/local/domain/5/data/a", "t")]


def test_watches_do_not_hear_of_one_that_failed(guest: Client) -> None:
    guest.watch("data/b", "t")
    tx, lost = guest.start(), guest.start()
    guest.heard()
    guest.write("data/b", "1", tx=tx)
    guest.write("data/b", "1", tx=lost)
    guest.end(tx, "F")
    guest.write("data/b", "2")
    guest.end(lost)
    assert guest.heard() == [("data/b", "t")]


def test_permissions_count_inside_too(guest: Client) -> None:
    tx = guest.start()
    assert guest.write("name", "x", tx=tx) == "EACCES"
    assert guest.read("/vm/nothing", tx=tx) == "EACCES"
    assert guest.ask(XsType.SET_PERMS, "data/a", "r5", tx=tx) == OK
    assert guest.ask(XsType.GET_PERMS, "data/a", tx=tx) == b"r5\0"
    assert guest.ask(XsType.GET_PERMS, "data/a") == b"n5\0"


def test_a_store_can_be_saved_in_the_middle_of_it(guest: Client) -> None:
    """All of it is plain data: what is loaded goes on as if nothing had been."""
    tx, lost = guest.start(), guest.start()
    guest.write("data/a", "mine", tx=tx)
    guest.write("data/b", "mine", tx=lost)
    guest.write("data/b", "theirs")
    loaded: Client = pickle.loads(pickle.dumps(guest))
    assert loaded.end(tx) == OK
    assert loaded.end(lost) == "EAGAIN"
    assert loaded.read("data/a") == b"mine"
    assert guest.read("data/a") == b"old"


def test_an_unknown_transaction_is_refused(guest: Client) -> None:
    assert guest.read("data/a", tx=99) == "ENOENT"
    assert guest.end(99) == "ENOENT"
    assert guest.end(0) == "ENOENT"


def test_another_domains_transaction_is_unknown(store: Store, guest: Client) -> None:
    other = domu(store, 6)
    tx = guest.start()
    assert other.read("name", tx=tx) == "ENOENT"


def test_transactions_do_not_nest(guest: Client) -> None:
    tx = guest.start()
    assert guest.ask(XsType.TRANSACTION_START, "", tx=tx) == "EBUSY"


def test_a_malformed_end_leaves_it_open(guest: Client) -> None:
    tx = guest.start()
    assert guest.end(tx, "maybe") == "EINVAL"
    assert guest.end(tx) == OK


def test_numbers_run_around_zero_and_those_in_use(guest: Client) -> None:
    guest.connection.next_transaction = 0xFFFF_FFFF
    assert guest.start() == 0xFFFF_FFFF
    assert guest.start() == 1
    guest.connection.next_transaction = 0xFFFF_FFFF
    assert guest.start() == 2


def test_what_others_make_below_what_was_missing_is_missing_too(guest: Client) -> None:
    """Else a node would exist inside whose parent does not."""
    tx = guest.start()
    assert guest.read("data/new", tx=tx) == "ENOENT"
    guest.write("data/new/below", "theirs")
    assert guest.read("data/new/below", tx=tx) == "ENOENT"
    guest.write("data/new/below", "mine", tx=tx)
    assert guest.read("data/new/below", tx=tx) == b"mine"
    assert guest.end(tx) == "EAGAIN"
    assert guest.read("data/new/below") == b"theirs"


def test_what_others_remove_although_it_was_seen_listed_means_again(guest: Client) -> None:
    tx = guest.start()
    assert guest.directory("data", tx=tx) == b"a\0b\0"
    guest.rm("data/b")
    assert guest.rm("data", tx=tx) == "EAGAIN"
    assert guest.end(tx) == "EAGAIN"
    assert guest.directory("data") == b"a\0"
