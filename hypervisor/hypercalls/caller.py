"""Who makes a hypercall, as its handler sees it."""

from __future__ import annotations

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.types import DOMID_SELF
from hypervisor.abi.width import Width
from hypervisor.control.host import Host
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.mm.guest_memory import GuestMemory
from hypervisor.traps.current import Current


class Caller:
    """The domain and vCPU on the CPU, and the machine they act on. One object, never stored."""

    __slots__ = ("current", "host")

    def __init__(self, host: Host, current: Current) -> None:
        self.host = host
        self.current = current

    @property
    def dom(self) -> Domain:
        """The calling domain."""
        return self.current.dom

    @property
    def vcpu(self) -> Vcpu:
        """The calling vCPU."""
        return self.current.vcpu

    @property
    def mem(self) -> GuestMemory:
        """The caller's memory, by its linear addresses."""
        return self.current.mem

    @property
    def width(self) -> Width:
        """The caller's ABI."""
        return self.current.vcpu.width

    def find(self, domid: int) -> Domain:
        """The domain that `domid` names, DOMID_SELF being the caller. Raises XenError(ESRCH)."""
        if domid in (DOMID_SELF, self.dom.domid):
            return self.dom
        dom = self.host.domains.get(domid)
        if dom is None:
            raise XenError(Errno.ESRCH, f"there is no domain {domid:#x}")
        return dom

    def require_target(self, dom: Domain) -> None:
        """Acting on a domain needs to be it, or to be privileged (XSM_TARGET). Raises EPERM."""
        if dom is not self.dom and not self.dom.privileged:
            raise XenError(Errno.EPERM, f"d{self.dom.domid} may not act on d{dom.domid}")

    def resolve(self, domid: int) -> Domain:
        """The domain that `domid` names, if the caller may act on it.

        Raises XenError(ESRCH) if there is none, XenError(EPERM) if it is another one and the caller
        is not privileged.
        """
        dom = self.find(domid)
        self.require_target(dom)
        return dom

    def require_self(self, domid: int) -> None:
        """Refuse a domain other than the caller itself, as far as that is another's to refuse."""
        self.resolve(domid)

    def vcpu_of(self, vcpu_id: int) -> Vcpu:
        """A vCPU of the caller's domain. Raises XenError(ENOENT)."""
        if vcpu_id >= len(self.dom.vcpus):
            raise XenError(Errno.ENOENT, f"d{self.dom.domid} has no vCPU {vcpu_id}")
        return self.dom.vcpus[vcpu_id]
