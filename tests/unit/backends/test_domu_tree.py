"""What a new domain finds in the store, and what it may do there."""

from __future__ import annotations

import pytest

from hypervisor.abi.xs_wire import XsType
from hypervisor.backends.xenstore import Store, domu_tree, remove_domu_tree
from tests.support.xenstore_client import OK, Client

UUID = "00000000-0000-0000-0000-000000000005"


@pytest.fixture
def guest() -> Client:
    store = Store()
    domu_tree(
        store,
        5,
        name="five",
        uuid=UUID,
        memory_kib=65536,
        vcpus=2,
        console_mfn=0x123,
        console_port=2,
        store_mfn=0x456,
        store_port=1,
    )
    return Client(store, 5)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", b"five"),
        ("domid", b"5"),
        ("vm", f"/vm/{UUID}".encode()),
        (f"/vm/{UUID}/name", b"five"),
        (f"/vm/{UUID}/uuid", UUID.encode()),
        ("memory/target", b"65536"),
        ("cpu/1/availability", b"online"),
        ("console/ring-ref", b"291"),
        ("console/port", b"2"),
        ("console/type", b"xenconsoled"),
        ("store/ring-ref", b"1110"),
        ("store/port", b"1"),
        ("control/platform-feature-xs_reset_watches", b"1"),
        ("control/shutdown", b""),
    ],
)
def test_a_domain_finds_what_it_is(guest: Client, path: str, value: bytes) -> None:
    assert guest.read(path) == value


@pytest.mark.parametrize(
    "path", ["name", "domid", "memory/target", "console/port", "device", "control", f"/vm/{UUID}"]
)
def test_what_the_toolstack_says_is_read_only(guest: Client, path: str) -> None:
    assert isinstance(guest.read(path), bytes)
    assert guest.write(path, "x") == "EACCES"
    assert guest.mkdir(f"{path}/x") == "EACCES"


@pytest.mark.parametrize(
    "path", ["data", "data/mine", "control/shutdown", "feature/x", "attr/os", "error/device"]
)
def test_what_is_its_own_it_may_change(guest: Client, path: str) -> None:
    assert guest.write(path, "x") == OK
    assert guest.ask(XsType.GET_PERMS, path) == b"n5\0"


def test_it_counts_its_own_nodes_only(guest: Client) -> None:
    assert guest.store.owned[5] == 11


def test_everything_goes_with_the_domain(guest: Client) -> None:
    before = dict(Store().nodes)
    guest.write("data/a/b", "x")
    remove_domu_tree(guest.store, 5, uuid=UUID)
    assert guest.store.nodes.keys() == before.keys()
    assert guest.store.owned[5] == 0
