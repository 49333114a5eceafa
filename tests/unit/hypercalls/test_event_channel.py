"""event_channel_op: who may do what to whose ports, and what the guest reads back."""

from __future__ import annotations

from typing import Any

import pytest

from hypervisor.abi import event_channel as abi
from hypervisor.abi.errno import Errno
from hypervisor.abi.event_channel import EvtchnOp, EvtchnStat
from hypervisor.abi.types import DOMID_IO, DOMID_SELF
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr, Virq
from hypervisor.control.host import IPI_GRACE_NS
from hypervisor.events.timers import TimerKey, TimerKind
from hypervisor.hypercalls.table import Preempted
from tests.support.callers import UNMAPPED, Guest, guests, refused

Two = tuple[Guest, Guest]


def op(guest: Guest, operation: int, argument: Any) -> Any:
    """Do it and return the argument as it came back."""
    assert guest.op(HypercallNr.EVENT_CHANNEL_OP, operation, argument) == 0
    return argument


def unbound(guest: Guest, remote: int = DOMID_SELF, dom: int = DOMID_SELF) -> int:
    alloc = op(guest, EvtchnOp.ALLOC_UNBOUND, abi.EvtchnAllocUnbound(dom, remote))
    return int(alloc.port)


def status(guest: Guest, port: int, dom: int = DOMID_SELF) -> abi.EvtchnStatus:
    found: abi.EvtchnStatus = op(guest, EvtchnOp.STATUS, abi.EvtchnStatus(dom, port, u=0x5A5A))
    return found


def test_domain_learns_its_number_from_an_unbound_port(guest: Guest) -> None:
    found = status(guest, unbound(guest))
    assert (found.status, found.u) == (EvtchnStat.UNBOUND, guest.dom.domid)


def test_bind_interdomain_writes_the_local_port_back(pair: Two) -> None:
    near, far = pair
    port = unbound(far, near.dom.domid)
    bind = op(near, EvtchnOp.BIND_INTERDOMAIN, abi.EvtchnBindInterdomain(far.dom.domid, port))
    found = status(near, bind.local_port)
    assert found.status == EvtchnStat.INTERDOMAIN
    assert (found.u, found.u_port) == (far.dom.domid, port)


def test_loopback_by_domid_self(guest: Guest) -> None:
    port = unbound(guest)
    bind = op(guest, EvtchnOp.BIND_INTERDOMAIN, abi.EvtchnBindInterdomain(DOMID_SELF, port))
    assert status(guest, port).u_port == bind.local_port


@pytest.mark.parametrize("domid", [999, DOMID_IO])
def test_bind_interdomain_to_nobody_is_refused(guest: Guest, domid: int) -> None:
    with refused(Errno.ESRCH, rf"^there is no domain {domid:#x}$"):
        op(guest, EvtchnOp.BIND_INTERDOMAIN, abi.EvtchnBindInterdomain(domid, 1))


def test_status_of_a_virq_and_an_ipi(guest: Guest) -> None:
    timer = op(guest, EvtchnOp.BIND_VIRQ, abi.EvtchnBindVirq(Virq.DEBUG, 0)).port
    ipi = op(guest, EvtchnOp.BIND_IPI, abi.EvtchnBindIpi(0)).port
    assert (status(guest, timer).status, status(guest, timer).u) == (EvtchnStat.VIRQ, Virq.DEBUG)
    assert status(guest, ipi).status == EvtchnStat.IPI


def test_status_of_a_closed_port_leaves_the_union_alone(guest: Guest) -> None:
    found = status(guest, 60)
    assert (found.status, found.u) == (EvtchnStat.CLOSED, 0x5A5A)


def test_another_domains_ports_need_privilege(pair: Two) -> None:
    near, far = pair
    with refused(Errno.EPERM, "^d1 may not act on d2$"):
        status(near, 1, far.dom.domid)
    with refused(Errno.EPERM, "^d1 may not act on d2$"):
        unbound(near, dom=far.dom.domid)
    with refused(Errno.EPERM, "^d1 may not act on d2$"):
        op(near, EvtchnOp.RESET, abi.EvtchnReset(far.dom.domid))


def test_port_that_does_not_exist_is_found_out_before_missing_privilege(pair: Two) -> None:
    near, far = pair
    with refused(Errno.EINVAL, "^port 999 of d2 does not exist$"):
        status(near, 999, far.dom.domid)


def test_privileged_domain_prepares_ports_for_others(dom0: Two) -> None:
    near, far = dom0
    port = unbound(near, remote=near.dom.domid, dom=far.dom.domid)
    assert status(near, port, far.dom.domid).u == near.dom.domid


def test_reset_of_another_domain_needs_it_paused(dom0: Two) -> None:
    near, far = dom0
    port = unbound(far)
    with refused(Errno.EINVAL, "^d2 is running; pause it"):
        op(near, EvtchnOp.RESET, abi.EvtchnReset(far.dom.domid))
    near.host.pause(far.dom)
    op(near, EvtchnOp.RESET, abi.EvtchnReset(far.dom.domid))
    assert status(near, port, far.dom.domid).status == EvtchnStat.CLOSED


def test_send_close_unmask_take_a_port(guest: Guest) -> None:
    port = op(guest, EvtchnOp.BIND_IPI, abi.EvtchnBindIpi(0)).port
    op(guest, EvtchnOp.SEND, abi.EvtchnSend(port))
    assert guest.host.events.is_pending(guest.dom, port)
    op(guest, EvtchnOp.UNMASK, abi.EvtchnUnmask(port))
    op(guest, EvtchnOp.BIND_VCPU, abi.EvtchnBindVcpu(unbound(guest), 0))
    op(guest, EvtchnOp.CLOSE, abi.EvtchnClose(port))
    with refused(Errno.EINVAL, f"^port {port} is FREE: not to be sent"):
        op(guest, EvtchnOp.SEND, abi.EvtchnSend(port))


@pytest.mark.parametrize(
    ("operation", "errno"),
    [
        (EvtchnOp.BIND_PIRQ, Errno.EPERM),
        (99, Errno.ENOSYS),
        (1 << 32 | 99, Errno.ENOSYS),
    ],
)
def test_what_is_not_there_is_refused(guest: Guest, operation: int, errno: Errno) -> None:
    with refused(errno, "."):
        guest.op(HypercallNr.EVENT_CHANNEL_OP, operation)


def test_port_stays_bound_when_its_number_cannot_be_written_back(guest: Guest) -> None:
    """Copying in works on a read-only page, copying back does not."""
    argument = guest.read_only(b"\0" * 8)
    free = guest.host.events.get_free_port(guest.dom)
    with refused(Errno.EFAULT, "it is not writable$"):
        guest.call(HypercallNr.EVENT_CHANNEL_OP, EvtchnOp.BIND_IPI, argument)
    assert status(guest, free).status == EvtchnStat.IPI


@pytest.mark.parametrize("operation", [EvtchnOp.SEND, EvtchnOp.STATUS, EvtchnOp.BIND_VIRQ])
def test_argument_that_cannot_be_read_is_a_fault(guest: Guest, operation: int) -> None:
    with refused(Errno.EFAULT, "^cannot read at 0x1000: it is not mapped$"):
        guest.call(HypercallNr.EVENT_CHANNEL_OP, operation, UNMAPPED)


# --- the FIFO ABI ---------------------------------------------------------------------------------
def test_fifo_by_hypercall(guest: Guest) -> None:
    mfn = guest.dom.p2m[-1]
    made = op(guest, EvtchnOp.INIT_CONTROL, abi.EvtchnInitControl(mfn, 0, 0))
    assert made.link_bits == 17
    op(guest, EvtchnOp.EXPAND_ARRAY, abi.EvtchnExpandArray(guest.dom.p2m[-2]))
    port = op(guest, EvtchnOp.BIND_IPI, abi.EvtchnBindIpi(0)).port
    op(guest, EvtchnOp.SET_PRIORITY, abi.EvtchnSetPriority(port, 1))
    op(guest, EvtchnOp.SEND, abi.EvtchnSend(port))
    assert guest.host.memory.u32[(mfn << 12) + 8 + 4 >> 2] == port


def test_long_reset_is_made_again(guest: Guest) -> None:
    op(guest, EvtchnOp.INIT_CONTROL, abi.EvtchnInitControl(guest.dom.p2m[-1], 0, 0))
    while guest.host.events.bind_ipi(guest.dom, 0) < 2000:
        pass
    with pytest.raises(Preempted) as later:
        op(guest, EvtchnOp.RESET, abi.EvtchnReset(DOMID_SELF))
    assert later.value.arguments == (EvtchnOp.RESET_CONT, guest.data)
    assert guest.call(HypercallNr.EVENT_CHANNEL_OP, *later.value.arguments) == 0
    assert guest.host.events.tables[guest.dom.domid].fifo is None


def test_reset_cont_without_a_reset_is_busy(guest: Guest) -> None:
    with refused(Errno.EBUSY, "."):
        op(guest, EvtchnOp.RESET_CONT, abi.EvtchnReset(DOMID_SELF))


# --- IPIs -----------------------------------------------------------------------------------------
def grace_ends(guest: Guest) -> int | None:
    key = TimerKey(guest.dom.domid, 0, TimerKind.GIVE_WAY)
    return guest.host.timers.deadline(key)


def test_who_interrupts_another_vcpu_soon_gives_way() -> None:
    with guests(Width.X86_64, nr_vcpus=2) as (guest,):
        port = op(guest, EvtchnOp.BIND_IPI, abi.EvtchnBindIpi(1)).port
        op(guest, EvtchnOp.SEND, abi.EvtchnSend(port))
        assert grace_ends(guest) == guest.host.now_ns + IPI_GRACE_NS


def test_who_interrupts_itself_goes_on(guest: Guest) -> None:
    port = op(guest, EvtchnOp.BIND_IPI, abi.EvtchnBindIpi(0)).port
    op(guest, EvtchnOp.SEND, abi.EvtchnSend(port))
    assert grace_ends(guest) is None
