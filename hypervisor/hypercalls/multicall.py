"""multicall: several hypercalls in one entry (Xen's common/multicall.c)."""

from __future__ import annotations

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.xen import HypercallNr, MulticallEntry
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import hypercall


@hypercall(HypercallNr.MULTICALL, args=2)
def multicall(caller: Caller, vaddr: int, count: int) -> int | None:
    """Do `count` calls in order; each result goes into its entry, refused or not.

    An iret ends the list: the guest is elsewhere then, and neither that entry nor the result
    register is written. A call that ends the domain or takes its vCPU off the CPU ends it too.
    """
    shape = layout(MulticallEntry, caller.width)
    result_offset = shape.offset("result")
    word = caller.width.word_bytes
    mask = (1 << 8 * word) - 1
    for idx in range(count):
        at = vaddr + idx * shape.size
        entry = shape.unpack_from(caller.mem.read(at, shape.size))
        if entry.op == HypercallNr.MULTICALL:
            raise XenError(Errno.EINVAL, "a multicall inside a multicall")
        result = caller.host.call_by_number(entry.op, tuple(entry.args))
        if result is None:
            return None
        caller.mem.write(at + result_offset, (result & mask).to_bytes(word, "little"))
    return 0
