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
from hypervisor.hypercalls.table import hypercall

_CHUNK: Final = 4096


@hypercall(HypercallNr.CONSOLE_IO, args=3)
def console_io(caller: Caller, command: int, count: int, vaddr: int) -> int:
    """Write `count` bytes, or read up to that many."""
    match command:
        case ConsoleioCmd.WRITE:
            while count:
                size = min(count, _CHUNK)
                caller.host.emergency_write(caller.dom, caller.mem.read(vaddr, size))
                vaddr += size
                count -= size
            return 0
        case ConsoleioCmd.READ:
            if not caller.dom.privileged:
                raise XenError(Errno.EPERM, f"d{caller.dom.domid} may not read Xen's console")
            data = caller.host.emergency_read(caller.dom, count)
            caller.mem.write(vaddr, data)
            return len(data)
        case _:
            raise XenError(Errno.ENOSYS, f"console_io command {command} is unknown")
