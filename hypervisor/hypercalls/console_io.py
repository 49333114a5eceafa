"""console_io: the hypervisor's own console.

Domain 0 writes its console there. Other domains may too, as in a debug build of Xen: their lines
appear in the hypervisor's log under their number, which is how a guest speaks before it has a
console of its own. Reading is Domain 0's alone.
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.xen import ConsoleioCmd, HypercallNr
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import Preempted, hypercall

_CHUNK: Final = 4096
_CHUNKS_AT_ONCE: Final = 16
_M32: Final = 0xFFFF_FFFF
_INT_MAX: Final = 0x7FFF_FFFF


@hypercall(HypercallNr.CONSOLE_IO, args=3)
def console_io(caller: Caller, command: int, count: int, vaddr: int) -> int:
    """Write `count` bytes, or read up to that many."""
    command &= _M32
    count &= _M32
    if command == ConsoleioCmd.WRITE:
        return _write(caller, count, vaddr)
    if not caller.dom.privileged:
        raise XenError(Errno.EPERM, f"d{caller.dom.domid} may only write to Xen's console")
    if command != ConsoleioCmd.READ:
        raise XenError(Errno.ENOSYS, f"console_io command {command} is unknown")
    if count > _INT_MAX:
        raise XenError(
            Errno.E2BIG, f"{count:#x} bytes to read: the result would look like an error"
        )
    data = caller.host.emergency_read(caller.dom, count)
    caller.mem.write(vaddr, data)
    return len(data)


def _write(caller: Caller, count: int, vaddr: int) -> int:
    """What was written before a fault stays written."""
    for _ in range(_CHUNKS_AT_ONCE):
        if not count:
            return 0
        size = min(count, _CHUNK)
        data = caller.mem.read(vaddr, size)
        caller.host.emergency_write(caller.dom, data)
        vaddr += size
        count -= size
    raise Preempted(ConsoleioCmd.WRITE, count, vaddr)
