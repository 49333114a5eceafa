"""What each type of message does, and when it is refused (docs/misc/xenstore.txt, xenstored)."""

from __future__ import annotations

import pytest

from hypervisor.abi.xs_wire import XenstoreError, XsType
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


# --- reading and writing -------------------------------------------------------------------------
def test_what_is_written_is_read(guest: Client) -> None:
    assert guest.write("data/a", b"one\0two") == OK
    assert guest.read("data/a") == b"one\0two"


def test_a_relative_path_starts_at_the_domains_home(guest: Client) -> None:
    guest.write("data/a", "x")
    assert guest.read("/local/domain/5/data/a") == b"x"
    assert guest.read("name") == b"guest5"


def test_writing_makes_what_is_missing_above(guest: Client) -> None:
    assert guest.write("data/a/b/c", "x") == OK
    assert guest.read("data/a/b") == b""
    assert guest.directory("data/a") == b"b\0"


def test_children_are_listed_in_the_order_of_their_creation(guest: Client) -> None:
    for name in ("z", "a", "m"):
        guest.mkdir(f"data/{name}")
    assert guest.directory("data") == b"z\0a\0m\0"


def test_mkdir_leaves_what_exists_alone(guest: Client) -> None:
    guest.write("data/a", "x")
    assert guest.mkdir("data/a") == OK
    assert guest.read("data/a") == b"x"


def test_rm_takes_all_below(guest: Client) -> None:
    guest.write("data/a/b/c", "x")
    assert guest.rm("data/a") == OK
    assert guest.directory("data") == b""
    assert guest.read("data/a/b/c") == "ENOENT"


def test_rm_of_nothing_is_fine_where_its_parent_exists(guest: Client) -> None:
    assert guest.rm("data/nothing") == OK
    assert guest.rm("data/nothing/below") == "ENOENT"


def test_a_very_deep_tree_can_be_removed(dom0: Client) -> None:
    """Deeper than Python's stack: 3,072 bytes of path hold 1,535 names."""
    deep = "/deep" + "/a" * 1500
    assert dom0.write(deep, "x") == OK
    assert dom0.rm("/deep") == OK
    assert dom0.read(deep) == "ENOENT"


def test_a_transaction_can_remove_a_very_deep_tree(dom0: Client) -> None:
    dom0.write("/deep" + "/a" * 1500, "x")
    tx = dom0.start()
    assert dom0.rm("/deep", tx=tx) == OK
    assert dom0.end(tx) == OK
    assert dom0.directory("/") == b"tool\0local\0vm\0"


def test_the_root_cannot_be_removed(dom0: Client, guest: Client) -> None:
    assert dom0.rm("/") == "EINVAL"
    assert guest.rm("/") == "EACCES"


# --- paths ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path",
    ["", "data//a", "data/", "/data/", "//", "data a", "data.a", "d\xe4ta", "@releaseDomain", "*"],
)
def test_what_is_no_path_is_invalid(guest: Client, path: str) -> None:
    assert guest.read(path) == "EINVAL"
    assert guest.write(path, "x") == "EINVAL"
    assert guest.mkdir(path) == "EINVAL"
    assert guest.rm(path) == "EINVAL"


def test_paths_have_a_greatest_length(dom0: Client, guest: Client) -> None:
    assert dom0.read("/" + "a" * 3071) == "ENOENT"
    assert dom0.read("/" + "a" * 3072) == "EINVAL"
    assert guest.read("data/" + "a" * 2043) == "ENOENT"
    assert guest.read("data/" + "a" * 2044) == "EINVAL"


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (XsType.READ, b""),
        (XsType.READ, b"data"),
        (XsType.READ, b"data\0x"),
        (XsType.READ, b"data\0data\0"),
        (XsType.DIRECTORY, b"data\0\0"),
        (XsType.MKDIR, b"data"),
        (XsType.RM, b"data\0x"),
        (XsType.GET_PERMS, b""),
        (XsType.WRITE, b""),
        (XsType.WRITE, b"data"),
        (XsType.SET_PERMS, b""),
        (XsType.SET_PERMS, b"data\0"),
        (XsType.SET_PERMS, b"data\0x5\0"),
        (XsType.SET_PERMS, b"data\0n\0"),
        (XsType.SET_PERMS, b"data\0n65536\0"),
        (XsType.WATCH, b"data\0"),
        (XsType.WATCH, b"data\0token\0more\0"),
        (XsType.UNWATCH, b"data\0"),
        (XsType.DIRECTORY_PART, b"data\0"),
        (XsType.TRANSACTION_END, b"X\0"),
        (XsType.GET_DOMAIN_PATH, b""),
    ],
)
def test_a_malformed_payload_is_invalid(guest: Client, kind: XsType, payload: bytes) -> None:
    assert guest.ask_raw(kind, payload) == "EINVAL"


def test_what_follows_the_last_zero_of_a_watch_is_nobodys_concern(guest: Client) -> None:
    assert guest.ask_raw(XsType.WATCH, b"data\0token\0rest") == OK


@pytest.mark.parametrize("kind", [15, 16, 20, 23, 0xFFFF, 0xFFFF_FFFF])
def test_an_unknown_type_is_not_implemented(guest: Client, kind: int) -> None:
    assert guest.ask_raw(kind, b"data\0") == "ENOSYS"


@pytest.mark.parametrize(
    "kind",
    [
        XsType.CONTROL,
        XsType.INTRODUCE,
        XsType.RELEASE,
        XsType.IS_DOMAIN_INTRODUCED,
        XsType.RESUME,
        XsType.SET_TARGET,
    ],
    ids=lambda kind: kind.name,
)
def test_managing_domains_is_not_for_guests(guest: Client, kind: XsType) -> None:
    assert guest.ask(kind, "5", "1", "2") == "EACCES"


def test_domain_0_can_ask_who_is_connected(dom0: Client, guest: Client) -> None:
    assert dom0.ask(XsType.IS_DOMAIN_INTRODUCED, str(guest.domid)) == b"T\0"
    assert dom0.ask(XsType.IS_DOMAIN_INTRODUCED, "6") == b"F\0"


@pytest.mark.parametrize(("text", "path"), [("7", "7"), ("007", "7"), ("x", "0"), ("7x", "7")])
def test_a_domains_path_is_known_without_the_domain(guest: Client, text: str, path: str) -> None:
    answer = f"/local/domain/{path}\0".encode()
    assert guest.ask(XsType.GET_DOMAIN_PATH, text) == answer


def test_a_long_directory_is_read_in_parts(dom0: Client) -> None:
    names = [f"node{number:04}" for number in range(1000)]
    for name in names:
        dom0.mkdir(f"/long/{name}")
    assert dom0.directory("/long") == "E2BIG"
    whole, generations = b"", set()
    while not whole.endswith(b"\0\0"):
        part = dom0.ask(XsType.DIRECTORY_PART, "/long", str(len(whole)))
        assert isinstance(part, bytes)
        assert len(part) <= 4096
        generation, _, listed = part.partition(b"\0")
        generations.add(generation)
        whole += listed
    assert whole[:-2].decode().split("\0") == names
    assert len(generations) == 1
    dom0.mkdir("/long/more")
    again = dom0.ask(XsType.DIRECTORY_PART, "/long", "0")
    assert isinstance(again, bytes)
    assert again.partition(b"\0")[0] not in generations


def test_a_part_behind_the_end_is_empty(guest: Client) -> None:
    answer = guest.ask(XsType.DIRECTORY_PART, "data", "100")
    assert isinstance(answer, bytes)
    assert answer.endswith(b"\0\0")


# --- permissions ---------------------------------------------------------------------------------
def test_a_guest_reads_only_what_it_may(store: Store, guest: Client) -> None:
    other = domu(store, 6)
    assert guest.read("/local/domain/6/name") == "EACCES"
    assert guest.directory("/") == "EACCES"
    assert other.read("/local/domain/6/name") == b"guest6"


def test_a_guest_is_not_told_whether_a_hidden_node_exists(guest: Client) -> None:
    assert guest.read("/vm/nothing") == "EACCES"
    assert guest.write("/vm/nothing", "x") == "EACCES"
    assert guest.rm("/vm/nothing") == "EACCES"
    assert guest.mkdir("/vm/nothing") == "EACCES"


def test_what_may_be_read_cannot_be_changed(guest: Client) -> None:
    assert guest.write("name", "x") == "EACCES"
    assert guest.mkdir("name") == "EACCES"
    assert guest.rm("name") == "EACCES"
    assert guest.mkdir("name/below") == "EACCES"
    assert guest.ask(XsType.SET_PERMS, "name", "b5") == "EACCES"
    assert guest.read("name") == b"guest5"


def test_a_new_node_belongs_to_its_maker_and_inherits_the_rest(store: Store) -> None:
    guest = domu(store, 5)
    store.set_permissions("/local/domain/5/data", ("r", 5), ("b", 7))
    guest.write("data/a/b", "x")
    for path in ("data/a", "data/a/b"):
        assert guest.ask(XsType.GET_PERMS, path) == b"r5\0b7\0"
    other = domu(store, 7)
    other.write("/local/domain/5/data/c", "y")
    assert guest.write("data/c", "z") == "EACCES"
    assert other.ask(XsType.GET_PERMS, "/local/domain/5/data/c") == b"r7\0b7\0"


@pytest.mark.parametrize(
    ("letter", "reads", "writes"),
    [("n", False, False), ("r", True, False), ("w", False, True), ("b", True, True)],
)
def test_letters_say_who_may_what(store: Store, letter: str, reads: bool, writes: bool) -> None:
    guest, other = domu(store, 5), domu(store, 6)
    guest.write("data/a", "x")
    assert guest.ask(XsType.SET_PERMS, "data/a", "n5", f"{letter}6") == OK
    path = "/local/domain/5/data/a"
    assert other.read(path) == (b"x" if reads else "EACCES")
    assert other.write(path, "y") == (OK if writes else "EACCES")


def test_the_owners_letter_is_for_all_who_are_not_listed(store: Store) -> None:
    guest, other, third = domu(store, 5), domu(store, 6), domu(store, 7)
    guest.write("data/a", "x")
    guest.ask(XsType.SET_PERMS, "data/a", "r5", "n6")
    assert third.read("/local/domain/5/data/a") == b"x"
    assert other.read("/local/domain/5/data/a") == "EACCES"


def test_a_node_cannot_be_given_away(guest: Client, dom0: Client) -> None:
    guest.write("data/a", "x")
    assert guest.ask(XsType.SET_PERMS, "data/a", "b6", "b5") == "EPERM"
    assert dom0.ask(XsType.SET_PERMS, "/local/domain/5/data/a", "b6", "b5") == OK
    assert guest.ask(XsType.GET_PERMS, "data/a") == b"b6\0b5\0"


def test_only_the_owner_changes_permissions(store: Store) -> None:
    guest, other = domu(store, 5), domu(store, 6)
    guest.write("data/a", "x")
    guest.ask(XsType.SET_PERMS, "data/a", "b5", "b6")
    assert other.ask(XsType.SET_PERMS, "/local/domain/5/data/a", "b6") == "EACCES"


def test_special_events_belong_to_domain_0(guest: Client, dom0: Client) -> None:
    assert guest.ask(XsType.SET_PERMS, "@releaseDomain", "r5") == "EACCES"
    assert dom0.ask(XsType.SET_PERMS, "@releaseDomain", "r0") == OK
    assert dom0.ask(XsType.SET_PERMS, "@nothing", "r0") == "EINVAL"


# --- the wire ------------------------------------------------------------------------------------
def test_a_request_may_arrive_in_any_pieces(store: Store, guest: Client) -> None:
    raw = Message(XsType.READ, 7, 0, b"name\0").encode()
    for byte in raw[:-1]:
        store.receive(guest.connection, bytes([byte]))
        assert not guest.connection.queue
    store.receive(guest.connection, raw[-1:])
    assert everything(guest.connection) == [Message(XsType.READ, 7, 0, b"guest5")]


def test_several_requests_are_answered_in_order(store: Store, guest: Client) -> None:
    raw = b"".join(Message(XsType.READ, number, 0, b"name\0").encode() for number in range(5))
    store.receive(guest.connection, raw)
    assert [message.req_id for message in everything(guest.connection)] == [0, 1, 2, 3, 4]


def test_the_longest_payload_is_taken(guest: Client) -> None:
    assert guest.ask_raw(XsType.READ, b"a" * 4095 + b"\0") == "EINVAL"


def test_a_longer_payload_ends_the_conversation(store: Store, guest: Client) -> None:
    guest.watch("data", "token")
    guest.start()
    header = Message(XsType.WRITE, 1, 0, b"x" * 4097).encode()[:16]
    store.receive(guest.connection, header)
    assert guest.connection.error is XenstoreError.PROTO
    assert not guest.connection.watches
    assert not guest.connection.transactions
    store.receive(guest.connection, Message(XsType.READ, 2, 0, b"name\0").encode())
    store.write("/local/domain/5/data", "changed")
    assert everything(guest.connection) == []


def test_a_long_value_that_nobody_could_be_sent_is_an_error(store: Store, guest: Client) -> None:
    store.write("/local/domain/5/name", b"x" * 5000)
    assert guest.read("name") == "E2BIG"
