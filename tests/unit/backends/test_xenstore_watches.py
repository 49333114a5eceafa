"""Who hears of what, and when."""

from __future__ import annotations

import pytest

from hypervisor.abi.xs_wire import XsType
from hypervisor.backends.xenstore import Store
from hypervisor.backends.xenstore.wire import Message
from tests.support.xenstore_client import OK, Client, domu, everything


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def guest(store: Store) -> Client:
    return domu(store, 5)


@pytest.fixture
def dom0(store: Store) -> Client:
    return Client(store, 0)


def test_a_watch_fires_once_at_first_behind_its_answer(store: Store, guest: Client) -> None:
    store.receive(guest.connection, Message(XsType.WATCH, 1, 0, b"data\0token\0").encode())
    assert everything(guest.connection) == [
        Message(XsType.WATCH, 1, 0, OK),
        Message(XsType.WATCH_EVENT, 0, 0, b"data\0token\0"),
    ]


def test_a_watch_on_nothing_fires_at_first_too(guest: Client) -> None:
    assert guest.watch("/nothing/here", "t") == OK
    assert guest.heard() == [("/nothing/here", "t")]


def test_events_name_the_path_as_the_watch_did(store: Store, guest: Client) -> None:
    guest.watch("data", "relative")
    guest.watch("/local/domain/5/data", "absolute")
    guest.heard()
    store.write("/local/domain/5/data/a", "x")
    assert guest.heard() == [
        ("data/a", "relative"),
        ("/local/domain/5/data/a", "absolute"),
    ]


@pytest.mark.parametrize("action", ["write", "mkdir", "rm", "permissions"])
def test_every_change_below_is_heard_of(guest: Client, action: str) -> None:
    guest.write("data/a", "x")
    guest.watch("data", "t")
    guest.heard()
    match action:
        case "write":
            guest.write("data/a", "x")
        case "mkdir":
            guest.mkdir("data/b")
        case "rm":
            guest.rm("data/a")
        case _:
            guest.ask(XsType.SET_PERMS, "data/a", "r5")
    assert guest.heard() == [("data/b" if action == "mkdir" else "data/a", "t")]


def test_reading_and_refusals_are_not_heard_of(guest: Client) -> None:
    guest.watch("data", "t")
    guest.watch("name", "n")
    guest.heard()
    guest.read("data")
    guest.mkdir("data")
    guest.rm("data/nothing")
    guest.write("name", "x")
    assert guest.heard() == []


def test_a_sibling_with_a_longer_name_is_not_below(guest: Client) -> None:
    guest.mkdir("data/a")
    guest.watch("data/a", "t")
    guest.heard()
    guest.mkdir("data/ab")
    assert guest.heard() == []


def test_a_removed_tree_is_one_event_above_and_one_for_each_watch_below(guest: Client) -> None:
    guest.write("data/a/b/c", "x")
    for path in ("data", "data/a", "data/a/b", "data/a/b/c", "data/a/b/c/d"):
        guest.watch(path, path)
    guest.heard()
    guest.rm("data/a")
    assert sorted(guest.heard()) == [
        ("data/a", "data"),
        ("data/a", "data/a"),
        ("data/a/b", "data/a/b"),
        ("data/a/b/c", "data/a/b/c"),
    ]


def test_two_tokens_are_two_watches(guest: Client) -> None:
    assert guest.watch("data", "one") == OK
    assert guest.watch("data", "two") == OK
    assert guest.watch("data", "one") == "EEXIST"
    guest.heard()
    guest.write("data", "x")
    assert guest.heard() == [("data", "one"), ("data", "two")]


def test_relative_and_absolute_are_the_same_watch(guest: Client) -> None:
    guest.watch("data", "t")
    assert guest.watch("/local/domain/5/data", "t") == "EEXIST"


def test_unwatch_ends_it(guest: Client) -> None:
    guest.watch("data", "t")
    assert guest.ask(XsType.UNWATCH, "data", "other") == "ENOENT"
    assert guest.ask(XsType.UNWATCH, "data", "t") == OK
    assert guest.ask(XsType.UNWATCH, "data", "t") == "ENOENT"
    guest.heard()
    guest.write("data", "x")
    assert guest.heard() == []


def test_reset_watches_ends_watches_and_transactions(guest: Client) -> None:
    guest.watch("data", "t")
    tx = guest.start()
    guest.heard()
    assert guest.ask(XsType.RESET_WATCHES, "") == OK
    guest.write("data", "x")
    assert guest.heard() == []
    assert guest.end(tx) == "ENOENT"


def test_a_watch_pays_no_attention_to_transactions(guest: Client) -> None:
    assert guest.ask(XsType.WATCH, "data", "t", tx=77) == OK
    assert guest.ask(XsType.UNWATCH, "data", "t", tx=77) == OK


# --- permissions ---------------------------------------------------------------------------------
def test_who_may_not_read_does_not_hear(store: Store, guest: Client) -> None:
    other = domu(store, 6)
    other.watch("/local/domain/5", "t")
    other.watch("/", "root")
    other.heard()
    guest.write("data/a", "x")
    guest.rm("data/a")
    assert other.heard() == []


def test_who_may_read_hears(store: Store, guest: Client) -> None:
    other = domu(store, 6)
    guest.write("data/a", "x")
    guest.ask(XsType.SET_PERMS, "data/a", "n5", "r6")
    other.watch("/local/domain/5/data/a", "t")
    other.heard()
    guest.write("data/a", "y")
    assert other.heard() == [("/local/domain/5/data/a", "t")]


def test_the_loss_of_a_permission_is_still_heard_of(store: Store, guest: Client) -> None:
    other = domu(store, 6)
    guest.write("data/a", "x")
    guest.ask(XsType.SET_PERMS, "data/a", "n5", "r6")
    other.watch("/local/domain/5/data/a", "t")
    other.heard()
    guest.ask(XsType.SET_PERMS, "data/a", "n5")
    guest.write("data/a", "secret")
    assert other.heard() == [("/local/domain/5/data/a", "t")]


def test_the_removal_of_what_could_be_read_is_heard_of(store: Store, guest: Client) -> None:
    other = domu(store, 6)
    guest.write("data/a", "x")
    guest.ask(XsType.SET_PERMS, "data/a", "n5", "r6")
    other.watch("/local/domain/5/data/a", "t")
    other.heard()
    guest.rm("data/a")
    assert other.heard() == [("/local/domain/5/data/a", "t")]


# --- special events ------------------------------------------------------------------------------
def test_domain_0_hears_of_domains_that_come_and_go(store: Store, dom0: Client) -> None:
    dom0.watch("@introduceDomain", "in")
    dom0.watch("@releaseDomain", "out")
    assert dom0.heard() == [("@introduceDomain", "in"), ("@releaseDomain", "out")]
    connection = store.connect(9)
    assert dom0.heard() == [("@introduceDomain", "in")]
    store.release(connection)
    assert dom0.heard() == [("@releaseDomain", "out")]


def test_a_guest_hears_of_them_only_if_domain_0_allows(
    store: Store, guest: Client, dom0: Client
) -> None:
    assert guest.watch("@releaseDomain", "t") == OK
    assert guest.heard() == [("@releaseDomain", "t")]
    store.release(store.connect(9))
    assert guest.heard() == []
    dom0.ask(XsType.SET_PERMS, "@releaseDomain", "n0", "r5")
    store.release(store.connect(9))
    assert guest.heard() == [("@releaseDomain", "t")]


def test_any_special_name_can_be_watched_and_means_nothing(guest: Client) -> None:
    assert guest.watch("@whatever you like", "t") == OK
    assert guest.watch("@" + "a" * 2048, "t") == "EINVAL"


def test_a_released_domain_hears_nothing(store: Store, guest: Client) -> None:
    guest.watch("data", "t")
    guest.heard()
    store.release(guest.connection)
    store.write("/local/domain/5/data", "x")
    assert guest.heard() == []
