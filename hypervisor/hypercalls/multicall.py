"""multicall: several hypercalls in one entry (Xen's common/multicall.c)."""

from __future__ import annotations

from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.xen import HypercallNr, MulticallEntry
from hypervisor.domain.domain import DomainState, VcpuState
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Preempted, hypercall

_CALLS_PER_PIECE: Final = 256
_M32: Final = 0xFFFF_FFFF


@hypercall(HypercallNr.MULTICALL, args=2)
def multicall(caller: Caller, vaddr: int, nr_calls: int) -> int | None:
    """Do `nr_calls` calls in order; each result goes into its entry, refused or not.

    An iret ends the list: the guest is elsewhere then, and neither that entry nor the result
    register is written. After a call that ends the domain or blocks its vCPU the rest of the list
    waits for the vCPU's next turn, and so it does when one call, or the list, has taken long:
    Preempted says what is left, and an entry that was not finished says in itself what it still
    has to do.
    """
    nr_calls &= _M32
    caller.host.tlb.hold()
    try:
        return _multicall(caller, vaddr, nr_calls)
    finally:
        caller.host.tlb.release()


def _multicall(caller: Caller, vaddr: int, nr_calls: int) -> int | None:
    shape = layout(MulticallEntry, caller.width)
    if not caller.mem.is_guest_handle(vaddr, nr_calls * shape.size):
        raise XenError(Errno.EFAULT, f"{nr_calls} calls at {vaddr:#x} reach Xen's region")
    for idx in range(nr_calls):
        at = vaddr + idx * shape.size
        if idx == _CALLS_PER_PIECE or (idx and not _goes_on(caller)):
            raise Preempted(at, nr_calls - idx)
        entry = shape.unpack_from(caller.mem.read(at, shape.size))
        try:
            result = _call(caller, entry)
        except Preempted as later:
            entry.args[: len(later.arguments)] = _words(caller, later.arguments)
            caller.mem.write(at, shape.pack(entry))
            raise Preempted(at, nr_calls - idx) from None
        if result is None:
            return None
        _write_result(caller, at + shape.offset("result"), result)
    return 0


def _call(caller: Caller, entry: MulticallEntry) -> int | None:
    if entry.op == HypercallNr.MULTICALL:
        return -Errno.EINVAL  # reentry is refused, and the list goes on
    return caller.host.call_by_number(entry.op, tuple(entry.args))


def _goes_on(caller: Caller) -> bool:
    """Whether the vCPU has not just blocked itself or ended its domain."""
    is_running = caller.dom.state is DomainState.RUNNING
    return is_running and caller.vcpu.state is VcpuState.RUNNABLE


def _words(caller: Caller, values: tuple[int, ...]) -> list[int]:
    mask = (1 << caller.width.bits) - 1
    return [value & mask for value in values]


def _write_result(caller: Caller, vaddr: int, result: int) -> None:
    (word,) = _words(caller, (result,))
    caller.mem.write(vaddr, word.to_bytes(caller.width.word_bytes, "little"))
