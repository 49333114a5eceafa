"""Whatever a guest writes into its ring pages: nothing raises, nothing is read or written outside,
and everything comes to an end."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from hypervisor.backends import console, xenstore_ring
from hypervisor.backends.rings import (
    CONSOLE_IN,
    CONSOLE_OUT,
    XENSTORE_REPLIES,
    XENSTORE_REQUESTS,
    RingLayout,
)
from hypervisor.backends.xenstore import Store

GUARD = 4096
INDEX_WORDS = sorted(
    {
        at
        for ring in (CONSOLE_IN, CONSOLE_OUT, XENSTORE_REQUESTS, XENSTORE_REPLIES)
        for at in (ring.cons, ring.prod)
    }
)

#: Indices as a hostile guest would choose them: near each other, near the ends, anything.
near = st.integers(-3, 3)
index = st.one_of(
    st.builds(
        lambda base, more: base + more & 0xFFFF_FFFF,
        st.sampled_from([0, 1023, 1024, 2048, 4096, 1 << 31, 1 << 32]),
        near,
    ),
    st.integers(0, 0xFFFF_FFFF),
)
#: Requests, sound and otherwise.
message = st.builds(
    lambda kind, tx, payload, more: struct.pack("<4I", kind, 1, tx, len(payload) + more) + payload,
    st.integers(0, 24),
    st.integers(0, 2),
    st.one_of(
        st.sampled_from([b"data\0", b"data/a\0x", b"data\0t\0", b"T\0", b"\0", b""]),
        st.binary(max_size=20),
    ),
    st.one_of(st.just(0), st.integers(0, 0x1_0000)),
)
#: What the guest does to its page between two notifications.
pokes = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(INDEX_WORDS), st.builds(struct.Struct("<I").pack, index)),
        st.tuples(st.integers(0, 2047), st.lists(message, max_size=4).map(b"".join)),
    ),
    max_size=8,
)
rounds = st.lists(pokes, min_size=1, max_size=4)


class Page:
    """A page between two guard pages."""

    def __init__(self) -> None:
        self._all = bytearray(b"\xa5" * GUARD + bytes(4096) + b"\xa5" * GUARD)
        self.view = memoryview(self._all)[GUARD : GUARD + 4096]

    def poke(self, changes: list[tuple[int, bytes]]) -> None:
        for at, data in changes:
            end = min(at + len(data), 4096)
            self.view[at:end] = data[: end - at]

    def guards_are_intact(self) -> bool:
        guard = b"\xa5" * GUARD
        return self._all[:GUARD] == guard and self._all[-GUARD:] == guard


def outside(page: memoryview, *rings: RingLayout, words: tuple[int, ...]) -> bytes:
    """All but these arrays and words."""
    kept = bytearray(page)
    for ring in rings:
        kept[ring.data : ring.data + ring.size] = bytes(ring.size)
    for at in words:
        kept[at : at + 4] = bytes(4)
    return bytes(kept)


@given(rounds)
def test_the_console_survives_any_page(all_pokes: list[list[tuple[int, bytes]]]) -> None:
    page = Page()
    for changes in all_pokes:
        page.poke(changes)
        words = (CONSOLE_OUT.cons, CONSOLE_IN.prod)
        before = outside(page.view, CONSOLE_IN, words=words)
        assert len(console.drain(page.view)) <= CONSOLE_OUT.size
        typed = bytearray(b"x" * 2000)
        count = console.feed(page.view, typed)
        assert 0 <= count <= CONSOLE_IN.size
        assert len(typed) == 2000 - count
        assert outside(page.view, CONSOLE_IN, words=words) == before
    assert page.guards_are_intact()


@given(rounds)
def test_xenstore_survives_any_page(all_pokes: list[list[tuple[int, bytes]]]) -> None:
    store, page = Store(), Page()
    store.write("/local/domain/5/data", "")
    store.set_permissions("/local/domain/5/data", ("n", 5))
    connection = store.connect(5)
    neighbour = store.connect(6)
    for changes in all_pokes:
        page.poke(changes)
        words = (XENSTORE_REQUESTS.cons, XENSTORE_REPLIES.prod, 2072)
        before = outside(page.view, XENSTORE_REPLIES, words=words)
        xenstore_ring.serve(store, connection, page.view)
        assert outside(page.view, XENSTORE_REPLIES, words=words) == before
        assert len(connection.input) < 4096 + 16 + 1024
    assert page.guards_are_intact()
    assert not neighbour.is_dropped
    assert not neighbour.queue
