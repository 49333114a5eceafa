"""The page between a domain and the store: partial messages, full rings, hostile indices."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest

from hypervisor.abi.xs_wire import XenstoreError, XsType
from hypervisor.backends import xenstore_ring
from hypervisor.backends.rings import XENSTORE_REPLIES, XENSTORE_REQUESTS, ByteStream
from hypervisor.backends.xenstore import Connection, Store
from hypervisor.backends.xenstore.limits import MAX_OUTSTANDING
from hypervisor.backends.xenstore.wire import Message, take_message

FEATURES, ERROR = 2064, 2072


@dataclass
class Guest:
    """A domain and its page; what it takes out of the ring is collected."""

    store: Store = field(default_factory=Store)
    page: memoryview = field(default_factory=lambda: memoryview(bytearray(4096)))
    connection: Connection = field(init=False)
    taken: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.store.write("/local/domain/5/data", "value")
        self.store.set_permissions("/local/domain/5/data", ("n", 5))
        self.connection = self.store.connect(5)

    def put(self, data: bytes) -> None:
        """Produce all of `data`, which has to fit."""
        assert ByteStream(self.page, XENSTORE_REQUESTS).write(data) == len(data)

    def serve(self) -> bool:
        return xenstore_ring.serve(self.store, self.connection, self.page)

    def take(self) -> list[Message]:
        """Consume what is in the ring, and give the messages that are complete."""
        self.taken += ByteStream(self.page, XENSTORE_REPLIES).read()
        messages = []
        while (message := take_message(self.taken)) is not None:
            messages.append(message)
        return messages

    def word(self, at: int) -> int:
        (value,) = struct.unpack_from("<I", self.page, at)
        return int(value)

    def set_word(self, at: int, value: int) -> None:
        struct.pack_into("<I", self.page, at, value)


@pytest.fixture
def guest() -> Guest:
    return Guest()


def read(number: int = 1, path: bytes = b"data") -> bytes:
    return Message(XsType.READ, number, 0, path + b"\0").encode()


def answer(number: int = 1) -> Message:
    return Message(XsType.READ, number, 0, b"value")


def test_the_page_says_that_errors_will_be_told(guest: Guest) -> None:
    xenstore_ring.advertise(guest.page)
    assert guest.word(FEATURES) == 2
    assert guest.word(ERROR) == XenstoreError.NONE


def test_a_request_is_answered(guest: Guest) -> None:
    guest.put(read())
    assert guest.serve()
    assert guest.take() == [answer()]


def test_nothing_to_do_is_nothing_to_tell(guest: Guest) -> None:
    assert not guest.serve()


def test_a_request_in_two_pieces_is_answered_when_it_is_whole(guest: Guest) -> None:
    raw = read()
    guest.put(raw[:7])
    guest.serve()
    assert guest.take() == []
    guest.put(raw[7:])
    guest.serve()
    assert guest.take() == [answer()]


def test_a_request_longer_than_the_ring_arrives_in_parts(guest: Guest) -> None:
    raw = Message(XsType.WRITE, 1, 0, b"data\0" + b"x" * 1900).encode()
    for start in range(0, len(raw), 1024):
        guest.put(raw[start : start + 1024])
        guest.serve()
    assert guest.take() == [Message(XsType.WRITE, 1, 0, b"OK\0")]
    assert guest.store.read("/local/domain/5/data") == b"x" * 1900


def test_an_answer_longer_than_the_ring_arrives_in_parts(guest: Guest) -> None:
    guest.store.write("/local/domain/5/data", b"y" * 3000)
    guest.put(read())
    messages: list[Message] = []
    for _ in range(3):
        guest.serve()
        messages += guest.take()
    assert messages == [Message(XsType.READ, 1, 0, b"y" * 3000)]
    assert not guest.serve()


def test_requests_wait_in_the_ring_while_answers_are_not_taken(guest: Guest) -> None:
    """All of them are answered in the end, and never more than so many wait meanwhile."""
    sent = 0
    answered: list[Message] = []
    while len(answered) < 300:
        while ByteStream(guest.page, XENSTORE_REQUESTS).space >= len(read()):
            guest.put(read(sent))
            sent += 1
        guest.serve()
        assert guest.connection.nr_replies <= MAX_OUTSTANDING
        assert len(guest.connection.input) < 2048
        answered += guest.take()
    assert [message.req_id for message in answered] == list(range(len(answered)))


def test_a_guest_that_takes_nothing_costs_a_bounded_amount(guest: Guest) -> None:
    for number in range(10_000):
        if ByteStream(guest.page, XENSTORE_REQUESTS).space < len(read()):
            break
        guest.put(read(number))
        guest.serve()
    assert number < 200
    assert len(guest.connection.input) <= 1024
    assert guest.connection.queued_bytes < MAX_OUTSTANDING * 40


def test_a_payload_too_long_ends_the_conversation_and_the_page_says_so(guest: Guest) -> None:
    guest.put(struct.pack("<4I", XsType.WRITE, 1, 0, 4097))
    assert guest.serve()
    assert guest.word(ERROR) == XenstoreError.PROTO
    guest.put(read())
    assert not guest.serve()
    assert guest.take() == []


@pytest.mark.parametrize("index", [2048, 2052, 2056, 2060])
@pytest.mark.parametrize("value", [0x401, 0x8000_0000, 0xFFFF_FFFF])
def test_impossible_indices_end_the_conversation_and_the_page_says_so(
    guest: Guest, index: int, value: int
) -> None:
    """`value` is one too far ahead, or behind, in whichever index it stands."""
    guest.set_word(index, value if index % 8 else -value & 0xFFFF_FFFF)
    if index >= 2056:
        guest.store.write("/local/domain/5/data", "changed")
        guest.put(read())
    guest.serve()
    assert guest.word(ERROR) == XenstoreError.RINGIDX
    assert guest.connection.is_dropped
    assert not guest.serve()


def test_a_pending_event_meets_impossible_indices_without_harm(guest: Guest) -> None:
    guest.put(Message(XsType.WATCH, 1, 0, b"data\0t\0").encode())
    guest.serve()
    guest.set_word(2056, 0x9999_9999)
    guest.store.write("/local/domain/5/data", "changed")
    assert xenstore_ring.flush(guest.connection, guest.page)
    assert guest.word(ERROR) == XenstoreError.RINGIDX
