"""mmu_update by long batches: at once, and one by one, on two equal machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hypervisor.abi.errors import XenError
from hypervisor.abi.types import DOMID_SELF
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr, MmuCommand
from hypervisor.hypercalls import mmu_bulk
from hypervisor.mm.bulk import Bulk
from hypervisor.mm.frames import OWNER_XEN
from tests.support.callers import Guest, guests
from tests.support.page_tables import done, leaf, page, spare, update

P, RW = 1, 3
COUNT = 64  # fills the data page up to the done count
FIRST_PFN = 200

Request = tuple[int, int]
Case = Callable[[Guest], list[Request]]


@pytest.fixture(params=Width, ids=lambda width: width.name)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Guest, Guest]]:
    """The first does long batches at once."""
    with guests(request.param) as (one,), guests(request.param) as (other,):
        bulk = Bulk(one.dom.page_tables)
        one.dom.page_tables.bulk = lambda count: bulk  # type: ignore[method-assign]
        yield one, other


def remaps(guest: Guest) -> list[Request]:
    """Every page of a stretch becomes read-only, some of them twice."""
    places = [leaf(guest, page(guest, FIRST_PFN + idx % 50)) for idx in range(COUNT)]
    return [(maddr, entry & ~2 | idx % 2 << 5) for idx, (maddr, entry) in enumerate(places)]


def replaced(idx: int, request: Callable[[Guest, Request], Request]) -> Case:
    def case(guest: Guest) -> list[Request]:
        requests = remaps(guest)
        requests[idx] = request(guest, requests[idx])
        return requests

    return case


def xens_frame(guest: Guest, request: Request) -> Request:
    return request[0], guest.host.frames.owned_by(OWNER_XEN)[0] << 12 | RW


def own_page(guest: Guest, request: Request) -> Request:
    """The page that the requests themselves stand in goes away."""
    return leaf(guest, guest.data)[0], 0


def command(number: int) -> Callable[[Guest, Request], Request]:
    return lambda guest, request: (request[0] | number, request[1])


CASES: dict[str, Case] = {
    "all_go": remaps,
    "refused_half_way": replaced(40, xens_frame),
    "refused_at_once": replaced(0, xens_frame),
    "accessed_and_dirty_stay": replaced(7, command(MmuCommand.PT_UPDATE_PRESERVE_AD)),
    "machphys_in_between": replaced(20, command(MmuCommand.MACHPHYS_UPDATE)),
    "ordinary_memory_in_between": replaced(
        20, lambda guest, request: (guest.dom.p2m[300] << 12, request[1])
    ),
    "maps_itself_away": replaced(10, own_page),
    "nobodys_table": replaced(33, lambda guest, request: (0xFFFF_F000, 0)),
}


def outcome(guest: Guest, case: Case) -> tuple[Any, ...]:
    guest.host.frames.flush_needed()
    spare(guest, 2)
    requests = case(guest)
    result: Any
    try:
        result = update(guest, *requests)
    except XenError as refusal:
        result = refusal.errno, refusal.why
    frames = guest.host.frames
    return (
        result,
        frames.type_count.tolist(),
        frames.ref_count.tolist(),
        bytes(frames.type),
        [leaf(guest, page(guest, FIRST_PFN + idx))[1] for idx in range(50)],
        leaf(guest, guest.data)[1],
    )


@pytest.mark.parametrize("case", CASES)
def test_at_once_as_one_by_one(pair: tuple[Guest, Guest], case: str) -> None:
    one, other = pair
    assert outcome(one, CASES[case]) == outcome(other, CASES[case])
    if case != "maps_itself_away":
        assert done(one) == done(other)


def test_it_is_done_at_once(pair: tuple[Guest, Guest], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above compare the loop with itself."""
    at_once: list[int] = []
    real = mmu_bulk.update

    def counted(*args: Any) -> int:
        at_once.append(real(*args))
        return at_once[-1]

    monkeypatch.setattr(mmu_bulk, "update", counted)
    update(pair[0], *remaps(pair[0]))
    assert at_once == [COUNT]


def test_a_batch_that_maps_itself_away_is_left_to_the_loop(pair: tuple[Guest, Guest]) -> None:
    guest = pair[0]
    requests = replaced(10, own_page)(guest)
    with pytest.raises(XenError, match=r"is not mapped$"):
        update(guest, *requests)
    untouched = leaf(guest, page(guest, FIRST_PFN + 11))[1]
    assert untouched & RW == RW


def test_the_list_is_copied_from_two_pages(pair: tuple[Guest, Guest]) -> None:
    guest = pair[0]
    requests = remaps(guest)
    raw = b"".join(value.to_bytes(8, "little") for request in requests for value in request)
    vaddr = page(guest, 2) - 512
    guest.enter().mem.write(vaddr, raw)
    assert guest.call(HypercallNr.MMU_UPDATE, vaddr, COUNT, 0, DOMID_SELF) == 0
    assert all(leaf(guest, page(guest, FIRST_PFN + idx))[1] & RW == P for idx in range(50))
