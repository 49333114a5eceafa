"""Domains that come, crash and go leave the machine as it was."""

from __future__ import annotations

import pytest

from hypervisor.abi.event_channel import EvtchnAllocUnbound, EvtchnOp
from hypervisor.abi.grant_table import GnttabOp, GnttabSetupTable
from hypervisor.abi.layout import layout
from hypervisor.abi.memory import XenmemOp, XenMemoryReservation
from hypervisor.abi.types import DOMID_SELF
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr
from hypervisor.api import BuildError, Machine
from hypervisor.domain.domain import DomainState
from hypervisor.mm.audit import audit
from hypervisor.mm.frames import OWNER_FREE
from tests.support.callers import Guest, nop_kernel

WIDTHS = pytest.mark.parametrize("width", Width, ids=lambda width: width.name)


def use_everything(guest: Guest) -> None:
    """A port, a timer, a grant table, and its data page given back while it is mapped."""
    guest.op(
        HypercallNr.EVENT_CHANNEL_OP,
        EvtchnOp.ALLOC_UNBOUND,
        EvtchnAllocUnbound(DOMID_SELF, DOMID_SELF, 0),
    )
    guest.call(HypercallNr.SET_TIMER_OP, *_deadline(guest))
    free_before = guest.host.frames.nr_free
    grants = GnttabSetupTable(DOMID_SELF, 4, 0, guest.data + 256)
    vaddr = guest.put(layout(GnttabSetupTable, guest.width).pack(grants))
    guest.call(HypercallNr.GRANT_TABLE_OP, GnttabOp.SETUP_TABLE, vaddr, 1)
    assert guest.host.frames.nr_free == free_before - 4
    given = guest.put(guest.dom.p2m[0x2].to_bytes(guest.width.word_bytes, "little"), 256)
    extents = XenMemoryReservation(given, 1, 0, 0, DOMID_SELF)
    vaddr = guest.put(layout(XenMemoryReservation, guest.width).pack(extents))
    guest.call(HypercallNr.MEMORY_OP, XenmemOp.DECREASE_RESERVATION, vaddr)


def _deadline(guest: Guest) -> tuple[int, int]:
    deadline = guest.host.now_ns + 1_000_000
    return deadline & 0xFFFF_FFFF if not guest.width.is_64 else deadline, deadline >> 32


def holdings(machine: Machine) -> tuple[object, ...]:
    """What the machine has left, and what it keeps for domains."""
    host = machine.vmm.host
    return (
        host.frames.nr_free,
        sorted(host.domains),
        host.timers.next_deadline(),
        list(host.grants.tables),
        sum(host.frames.type_count),
    )


@WIDTHS
def test_every_frame_port_and_timer_comes_back(width: Width) -> None:
    with Machine(memory_mib=16) as machine:
        machine.vmm.destroy(Guest(machine, width).dom)  # the tables that all domains share
        before = holdings(machine)
        for _ in range(4):
            guest = Guest(machine, width)
            use_everything(guest)
            machine.vmm.destroy(guest.dom)
            assert holdings(machine) == before
            audit(machine.vmm.host.frames, machine.vmm.audit_subjects())


@WIDTHS
def test_a_crashed_domain_gives_all_back(width: Width) -> None:
    with Machine(memory_mib=16) as machine:
        machine.vmm.destroy(Guest(machine, width).dom)
        before = holdings(machine)
        guest = Guest(machine, width)
        use_everything(guest)
        guest.enter()
        machine.vmm.crash_current("by the test")
        assert guest.dom.state is DomainState.CRASHED
        machine.vmm.destroy(guest.dom)
        assert holdings(machine) == before


def test_several_domains_end_in_any_order() -> None:
    with Machine(memory_mib=40) as machine:
        for width in Width:
            machine.vmm.destroy(Guest(machine, width).dom)
        before = holdings(machine)
        guests = [Guest(machine, width) for width in (*Width, *Width)]
        for guest in guests:
            use_everything(guest)
        for guest in (*guests[1::2], *guests[::2]):
            machine.vmm.destroy(guest.dom)
            audit(machine.vmm.host.frames, machine.vmm.audit_subjects())
        assert holdings(machine) == before


@WIDTHS
def test_a_domain_that_does_not_fit_leaves_nothing(width: Width) -> None:
    """Whichever allocation fails: one frame more is free each time."""
    with Machine(memory_mib=9) as machine:
        host = machine.vmm.host
        machine.vmm.destroy(Guest(machine, width).dom)
        spare = host.frames.nr_free
        failures = 0
        for left in range(1024, 1040):
            kept = host.frames.allocate_xen(host.frames.nr_free - left)
            before = holdings(machine)
            try:
                machine.vmm.destroy(Guest(machine, width).dom)
            except BuildError:
                failures += 1
            assert holdings(machine) == before
            for mfn in kept:
                host.frames.release_allocation(mfn)
        assert failures > 0
        assert host.frames.nr_free == spare


def test_frames_are_scrubbed_before_they_are_given_again() -> None:
    with Machine(memory_mib=16) as machine:
        guest = Guest(machine, Width.X86_64)
        guest.put(b"secret")
        machine.vmm.destroy(guest.dom)
        frames = machine.vmm.host.frames
        free = [mfn for mfn, owner in enumerate(frames.owner) if owner == OWNER_FREE and mfn]
        assert not any(any(machine.vmm.memory.frame(mfn)) for mfn in free)


def test_old_code_is_not_run_in_a_new_domain() -> None:
    """The same frame, other code: nothing translated for the old domain is left."""
    with Machine(memory_mib=16) as machine:
        first = machine.create(nop_kernel(Width.X86_64), memory_mib=4)
        machine.run(time_limit_ns=1000)
        assert any(machine.vmm.cpu.code_frames)
        first.destroy()
        frames = machine.vmm.host.frames
        stale = [
            mfn
            for mfn, has_code in enumerate(machine.vmm.cpu.code_frames)
            if has_code and frames.owner[mfn] == OWNER_FREE
        ]
        assert stale == []
