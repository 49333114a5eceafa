"""How refusals travel through the hypervisor; see `errno` for the numbers."""

from __future__ import annotations

from hypervisor.abi.errno import Errno


class XenError(Exception):
    """Xen refuses: becomes -errno in the guest's result register.

    `why` names the rule and the value; it goes to the trace, never to the guest.
    """

    def __init__(self, errno: Errno, why: str) -> None:
        super().__init__(why)
        self.errno = errno
        self.why = why


class DomainCrash(Exception):
    """Xen would end the domain: ends that domain, and nothing else."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
