"""The loop that mmu_update and mmuext_op share: its count, its pieces, what it reports.

Both take an array of requests and stop at the first refusal; how many were done before goes to
`done_vaddr`. As in Xen a guest may ask for two thousand million requests in one call, or for one
that is worth millions of entries (the pin of a tree of tables). So the work is done in pieces, with
the machine's other business between them: a call that has had its share is made again by the guest,
with arguments that say what is left. MMU_UPDATE_PREEMPTED in the count marks such a call, and as in
Xen a guest that sets it itself only adds to its own count of what was done (do_mmu_update,
do_mmuext_op in arch/x86/mm.c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Preempted
from hypervisor.mm.pagetables import UNLIMITED, OutOfBudget

MMU_UPDATE_PREEMPTED: Final = 1 << 31  # Xen's own, in a count (arch/x86/include/asm/mm.h)

REQUESTS_PER_PIECE: Final = 512
#: Page-table entries looked at in one piece; more than three tables' worth, so that a retry, which
#: passes at most one kept table of each upper level, always gets further.
ENTRIES_PER_PIECE: Final = 16384
_SINGLY: Final = 64  # requests done one by one where doing many at once has come to an end

_M32: Final = 0xFFFF_FFFF


class Batch(NamedTuple):
    """The four arguments, cut to the width that Xen gives them."""

    vaddr: int
    nr_requests: int
    done_vaddr: int
    foreign: int  # low half: whose frames; high half: whose tables, 0 or domid + 1


#: (address of the first, how many there are) to how many were done; a refusal is left to the loop.
DoMany = Callable[[int, int], int]


def run(
    caller: Caller,
    batch: Batch,
    request_bytes: int,
    prepare: Callable[[], None],
    do_one: Callable[[bytes], None],
    do_many: DoMany | None = None,
) -> int:
    """Do all requests of `batch`, or a piece of them. Raises XenError, Preempted.

    `prepare` comes after the look at the list's address and before any request.
    """
    tables = caller.dom.page_tables
    tables.budget = ENTRIES_PER_PIECE
    caller.host.tlb.hold()
    try:
        return _run(caller, batch, request_bytes, prepare, do_one, do_many)
    finally:
        tables.budget = UNLIMITED
        caller.host.tlb.release()


def _run(
    caller: Caller,
    batch: Batch,
    request_bytes: int,
    prepare: Callable[[], None],
    do_one: Callable[[bytes], None],
    do_many: DoMany | None,
) -> int:
    tables = caller.dom.page_tables
    if not tables.reap():
        raise Preempted(*batch)
    vaddr, count, done_vaddr, foreign = batch
    if count == MMU_UPDATE_PREEMPTED and vaddr == 0:
        return foreign - (foreign >> 31 << 32)  # the result of _after_reaping, signed
    done_before = 0
    if count & MMU_UPDATE_PREEMPTED:
        count &= ~MMU_UPDATE_PREEMPTED
        done_before = _done_so_far(caller, done_vaddr)
    if not caller.mem.is_guest_handle(vaddr, count * request_bytes):
        raise XenError(Errno.EFAULT, f"{count} requests at {vaddr:#x} reach Xen's region")
    prepare()
    idx = 0
    refusal: XenError | None = None
    who = caller.vcpu.vcpu_id
    singly_until = 0
    try:
        while idx < count:
            if idx == REQUESTS_PER_PIECE or tables.doomed:
                raise OutOfBudget
            if do_many is not None and idx >= singly_until and not tables.kept.get(who):
                first = vaddr + idx * request_bytes
                done = _attempt(do_many, first, min(count, REQUESTS_PER_PIECE) - idx)
                idx += done
                singly_until = idx + _SINGLY
                if done:
                    continue
            request = caller.mem.read(vaddr + idx * request_bytes, request_bytes)
            tables.retryable(who, do_one, request)
            idx += 1
    except XenError as error:
        refusal = error
    except OutOfBudget:
        _report(caller, done_vaddr, done_before + idx)
        left = count - idx | MMU_UPDATE_PREEMPTED
        raise Preempted(vaddr + idx * request_bytes, left, done_vaddr, foreign) from None
    _report(caller, done_vaddr, done_before + idx)
    if not tables.reap():
        _after_reaping(refusal)
    if refusal is not None:
        raise refusal
    return 0


def _attempt(do_many: DoMany, vaddr: int, nr: int) -> int:
    """How many requests could be done at once; what cannot be read or is refused, none."""
    if nr < _SINGLY:
        return 0
    try:
        return do_many(vaddr, nr)
    except XenError:
        return 0


def _after_reaping(refusal: XenError | None) -> NoReturn:
    """All is done but the giving back; the result waits in the argument that is needed no more."""
    result = 0 if refusal is None else -refusal.errno
    raise Preempted(0, MMU_UPDATE_PREEMPTED, 0, result & _M32)


def _done_so_far(caller: Caller, done_vaddr: int) -> int:
    """What earlier pieces have reported; Xen takes what it finds."""
    if not done_vaddr:
        return 0
    try:
        return int.from_bytes(caller.mem.read(done_vaddr, 4), "little")
    except XenError:
        return 0


def _report(caller: Caller, done_vaddr: int, done: int) -> None:
    """Tell the guest how many were done. As in Xen nothing comes of it if it cannot be told."""
    if done_vaddr:
        try:
            caller.mem.write(done_vaddr, (done & _M32).to_bytes(4, "little"))
        except XenError:
            return
