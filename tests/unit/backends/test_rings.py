"""Two byte streams in one page, whose other side may write anything anywhere."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from hypervisor.backends import console
from hypervisor.backends.rings import (
    CONSOLE_IN,
    CONSOLE_OUT,
    XENSTORE_REPLIES,
    XENSTORE_REQUESTS,
    BadIndices,
    ByteStream,
    RingLayout,
)

RINGS = {
    "console-in": CONSOLE_IN,
    "console-out": CONSOLE_OUT,
    "xenstore-requests": XENSTORE_REQUESTS,
    "xenstore-replies": XENSTORE_REPLIES,
}


@pytest.fixture
def page() -> Iterator[memoryview]:
    with memoryview(bytearray(4096)) as view:
        yield view


@pytest.fixture(params=list(RINGS.values()), ids=list(RINGS))
def ring(request: pytest.FixtureRequest) -> RingLayout:
    found: RingLayout = request.param
    return found


def set_indices(page: memoryview, ring: RingLayout, cons: int, prod: int) -> None:
    struct.pack_into("<I", page, ring.cons, cons & 0xFFFF_FFFF)
    struct.pack_into("<I", page, ring.prod, prod & 0xFFFF_FFFF)


def indices(page: memoryview, ring: RingLayout) -> tuple[int, int]:
    (cons,), (prod,) = (struct.unpack_from("<I", page, at) for at in (ring.cons, ring.prod))
    return cons, prod


def test_the_rings_lie_where_the_headers_put_them() -> None:
    assert list(RINGS.values()) == [
        RingLayout(data=0, size=1024, cons=3072, prod=3076),
        RingLayout(data=1024, size=2048, cons=3080, prod=3084),
        RingLayout(data=0, size=1024, cons=2048, prod=2052),
        RingLayout(data=1024, size=1024, cons=2056, prod=2060),
    ]


@pytest.mark.parametrize("start", [0, 1000, 1023, 2047, 0xFFFF_FFF0])
def test_what_is_written_is_read(page: memoryview, ring: RingLayout, start: int) -> None:
    set_indices(page, ring, start, start)
    data = bytes(range(100))
    assert ByteStream(page, ring).write(data) == 100
    assert indices(page, ring) == (start, start + 100 & 0xFFFF_FFFF)
    assert ByteStream(page, ring).read() == data
    assert indices(page, ring) == (start + 100 & 0xFFFF_FFFF, start + 100 & 0xFFFF_FFFF)


def test_an_empty_ring_reads_as_nothing(page: memoryview, ring: RingLayout) -> None:
    set_indices(page, ring, 77, 77)
    assert ByteStream(page, ring).read() == b""
    assert ByteStream(page, ring).space == ring.size


def test_a_full_ring_is_read_whole_and_written_not_at_all(
    page: memoryview, ring: RingLayout
) -> None:
    set_indices(page, ring, 500, 500)
    data = bytes(at % 251 for at in range(ring.size + 10))
    stream = ByteStream(page, ring)
    assert stream.write(data) == ring.size
    assert stream.space == 0
    assert stream.write(b"more") == 0
    assert stream.read() == data[: ring.size]


def test_nothing_but_the_ring_is_touched(page: memoryview, ring: RingLayout) -> None:
    page[:] = b"\xaa" * 4096
    set_indices(page, ring, ring.size - 3, ring.size - 3)
    before = bytes(page)
    ByteStream(page, ring).write(b"\x55" * 8)
    inside = {*range(ring.data, ring.data + ring.size), *range(ring.prod, ring.prod + 4)}
    assert all(page[at] == before[at] for at in range(4096) if at not in inside)


@pytest.mark.parametrize("excess", [1, 2, 1 << 31, (1 << 32) - 4096])
def test_impossible_indices_are_refused(page: memoryview, ring: RingLayout, excess: int) -> None:
    set_indices(page, ring, 5, 5 + ring.size + excess)
    before = bytes(page)
    stream = ByteStream(page, ring)
    with pytest.raises(BadIndices, match=rf"in a ring of {ring.size} bytes$"):
        stream.read()
    with pytest.raises(BadIndices):
        stream.write(b"x")
    assert bytes(page) == before


# --- the console on top of it --------------------------------------------------------------------
def test_the_console_takes_what_the_guest_wrote_once(page: memoryview) -> None:
    ByteStream(page, CONSOLE_OUT).write(b"hello\n")
    assert console.drain(page) == b"hello\n"
    assert console.drain(page) == b""


def test_what_does_not_fit_waits_for_room(page: memoryview) -> None:
    typed = bytearray(at % 256 for at in range(1500))
    whole = bytes(typed)
    assert console.feed(page, typed) == 1024
    assert console.feed(page, typed) == 0
    assert len(typed) == 476
    assert ByteStream(page, CONSOLE_IN).read() == whole[:1024]
    assert console.feed(page, typed) == 476
    assert ByteStream(page, CONSOLE_IN).read() == whole[1024:]


def test_a_console_with_impossible_indices_is_silent_until_they_are_right(
    page: memoryview,
) -> None:
    typed = bytearray(b"typed")
    set_indices(page, CONSOLE_OUT, 0, 5000)
    set_indices(page, CONSOLE_IN, 0, 5000)
    assert console.drain(page) == b""
    assert console.feed(page, typed) == 0
    assert typed == b"typed"
    set_indices(page, CONSOLE_IN, 5000, 5000)
    assert console.feed(page, typed) == 5
