"""multicall: each call's result in its entry, and what ends the list."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.layout import layout
from hypervisor.abi.sched import SchedOp, SchedShutdown
from hypervisor.abi.xen import UVMF_INVLPG, UVMF_TLB_FLUSH, HypercallNr, MulticallEntry
from hypervisor.domain.domain import DomainState, VcpuState
from hypervisor.hypercalls.table import Preempted
from hypervisor.mm.hole_map import HOLE
from tests.support.callers import UNMAPPED, Guest, refused
from tests.support.page_tables import leaf, page

UNTOUCHED = 0x55


def multicall(guest: Guest, *calls: tuple[int, ...]) -> int | None:
    shape = layout(MulticallEntry, guest.width)
    entries = [
        MulticallEntry(number, UNTOUCHED, [*args, *[0] * (6 - len(args))])
        for number, *args in calls
    ]
    vaddr = guest.put(b"".join(shape.pack(entry) for entry in entries))
    return guest.call(HypercallNr.MULTICALL, vaddr, len(calls))


def results(guest: Guest, count: int) -> list[int]:
    shape = layout(MulticallEntry, guest.width)
    sign = 1 << guest.width.bits - 1
    raw = guest.get(count * shape.size)
    unsigned = [shape.unpack_from(raw, idx * shape.size).result for idx in range(count)]
    return [(value ^ sign) - sign for value in unsigned]


VERSION = (HypercallNr.XEN_VERSION, 0, 0)


def test_results_go_into_their_entries(guest: Guest) -> None:
    assert multicall(guest, VERSION, (63,), VERSION) == 0
    version = guest.call(*VERSION)
    assert results(guest, 3) == [version, -Errno.ENOSYS, version]


def test_a_refusal_does_not_end_the_list(guest: Guest) -> None:
    assert multicall(guest, (HypercallNr.SET_GDT, 0, 9999), VERSION) == 0
    assert results(guest, 2) == [-Errno.EINVAL, guest.call(*VERSION)]


def test_a_list_in_a_list_is_refused_and_does_not_end_it(guest: Guest) -> None:
    assert multicall(guest, (HypercallNr.MULTICALL, guest.data, 1), VERSION) == 0
    assert results(guest, 2)[0] == -Errno.EINVAL


def test_no_calls(guest: Guest) -> None:
    assert guest.call(HypercallNr.MULTICALL, UNMAPPED, 0) == 0


def test_numbers_of_calls_have_32_bits(guest: Guest) -> None:
    assert guest.call(HypercallNr.MULTICALL, UNMAPPED, 1 << 32) == 0


def test_a_list_that_is_not_there(guest: Guest) -> None:
    with refused(Errno.EFAULT, r"is not mapped$"):
        guest.call(HypercallNr.MULTICALL, UNMAPPED, 1)
    with refused(Errno.EFAULT, r"reach Xen's region$"):
        guest.call(HypercallNr.MULTICALL, HOLE[guest.width].vaddr, 1)


def test_a_result_that_cannot_be_written_ends_the_list(guest: Guest) -> None:
    shape = layout(MulticallEntry, guest.width)
    vaddr = guest.read_only(shape.pack(MulticallEntry(*VERSION[:1], UNTOUCHED, [0] * 6)))
    with refused(Errno.EFAULT, r"is not writable$"):
        guest.call(HypercallNr.MULTICALL, vaddr, 1)


def test_a_call_that_blocks_leaves_the_rest_for_later(guest: Guest) -> None:
    with pytest.raises(Preempted) as later:
        multicall(guest, (HypercallNr.SCHED_OP, SchedOp.BLOCK, 0), VERSION, VERSION)
    assert guest.vcpu.state is VcpuState.BLOCKED
    shape = layout(MulticallEntry, guest.width)
    assert later.value.arguments == (guest.data + shape.size, 2)
    assert results(guest, 3) == [0, UNTOUCHED, UNTOUCHED]


def test_nothing_is_done_for_a_domain_that_has_ended(guest: Guest) -> None:
    shape = layout(SchedShutdown, guest.width)
    reason = guest.put(shape.pack(SchedShutdown(0)), 2048)
    with pytest.raises(Preempted):
        multicall(guest, (HypercallNr.SCHED_OP, SchedOp.SHUTDOWN, reason), VERSION)
    assert guest.dom.state is DomainState.SHUTDOWN
    assert results(guest, 2)[1] == UNTOUCHED


def test_the_last_call_may_block(guest: Guest) -> None:
    assert multicall(guest, VERSION, (HypercallNr.SCHED_OP, SchedOp.BLOCK, 0)) == 0
    assert guest.vcpu.state is VcpuState.BLOCKED


def test_the_list_flushes_once_at_its_end(guest: Guest) -> None:
    """Whatever its calls ask for: no guest code runs in between."""
    entry = leaf(guest, page(guest, 3))[1]
    words = [entry] if guest.width.is_64 else [entry & 0xFFFF_FFFF, entry >> 32]
    kinds = (UVMF_TLB_FLUSH, UVMF_INVLPG, UVMF_TLB_FLUSH)
    stats = guest.host.cpu.stats
    before = stats.tlb_flushes, stats.tlb_page_flushes
    calls = [(HypercallNr.UPDATE_VA_MAPPING, page(guest, 3), *words, kind) for kind in kinds]
    assert multicall(guest, *calls) == 0
    assert results(guest, 3) == [0, 0, 0]
    assert (stats.tlb_flushes, stats.tlb_page_flushes) == (before[0] + 1, before[1])
