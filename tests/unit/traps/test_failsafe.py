"""Data segments read again when a vCPU comes back, and the callback for those that are gone."""

from __future__ import annotations

import struct

import pytest

from hypervisor.domain.domain import DomainState
from hypervisor.domain.trap_state import Callback
from hypervisor.traps.segments import reload_data_segments
from hypervisor.x86.flags import DS, FS, GS, R11, RCX, RSP
from tests.support.callers import Guest

FLAT = 0x00CF_F300_0000_FFFF
ABSENT = FLAT & ~(1 << 47)
SHORT = 0x0040_F300_0000_0FFF
SELECTOR = 0x0B  # the first descriptor, RPL 3


@pytest.fixture(params=["guest_32", "guest_64"])
def guest(request: pytest.FixtureRequest) -> Guest:
    found: Guest = request.getfixturevalue(request.param)
    return found


def descriptor(guest: Guest, value: int) -> None:
    """The guest's GDT is one page, whose first descriptor is `value`."""
    mfn = guest.dom.p2m[-1]
    guest.vcpu.gdt_frames, guest.vcpu.gdt_entries = [mfn], 512
    guest.host.memory.frame(mfn)[8:16] = value.to_bytes(8, "little")


def load_fs(guest: Guest, value: int) -> None:
    descriptor(guest, value)
    state = guest.enter().current.state
    state.set_segment(FS, SELECTOR, 0, 0xFFFF_FFFF, 0x00CF_F300)


def test_segments_that_are_there_change_nothing(guest: Guest) -> None:
    load_fs(guest, FLAT)
    state = guest.enter().current.state
    before = [state.segment(register) for register in (DS, FS, GS)]
    assert reload_data_segments(guest.host.current) is None
    assert [state.segment(register) for register in (DS, FS, GS)] == before


def test_changed_descriptor_counts_from_now_on(guest_32: Guest) -> None:
    load_fs(guest_32, SHORT)
    assert reload_data_segments(guest_32.host.current) is None
    assert guest_32.host.current.state.segment(FS).limit == 0xFFF


def test_bases_of_64_bit_guests_have_a_life_of_their_own(guest_64: Guest) -> None:
    load_fs(guest_64, FLAT)
    state = guest_64.enter().current.state
    state.set_segment(FS, SELECTOR, 0x7000, 0xFFFF_FFFF, 0x00CF_F300)
    reload_data_segments(guest_64.host.current)
    assert state.segment(FS).base == 0x7000


def test_absent_segment_becomes_null_and_all_four_are_told(guest: Guest) -> None:
    load_fs(guest, ABSENT)
    state = guest.enter().current.state
    ds = state.segment(DS).selector
    assert reload_data_segments(guest.host.current) == (ds, ds, SELECTOR, ds)
    assert state.segment(FS).selector == 0
    assert state.segment(DS).selector == ds


def test_vcpu_that_comes_back_enters_its_failsafe_callback(guest: Guest) -> None:
    load_fs(guest, ABSENT)
    guest.vcpu.failsafe_callback = Callback(0xE033 if guest.width.is_64 else 0xE019, 0x7000)
    current = guest.host.current
    state = current.state
    state.rip = 0x1234
    state.set_gpr(RSP, guest.data + 0x100)
    state.set_gpr(RCX, 0xC)
    state.set_gpr(R11, 0xB)
    guest.machine.vmm.entry.reload_segments()
    assert state.rip == 0x7000
    ds = state.segment(DS).selector
    if guest.width.is_64:
        words = struct.unpack("<7Q", current.mem.read_raw(state.gpr(RSP), 56))
        assert words == (0xC, 0xB, ds, ds, SELECTOR, ds, 0x1234)
    else:
        words = struct.unpack("<5I", current.mem.read_raw(state.gpr(RSP), 20))
        assert words == (ds, ds, SELECTOR, ds, 0x1234)


@pytest.mark.parametrize("masks", [False, True])
def test_callback_says_whether_events_are_masked(guest: Guest, masks: bool) -> None:
    load_fs(guest, ABSENT)
    current = guest.host.current
    current.mask_events(False)
    guest.vcpu.failsafe_callback = Callback(0xE033 if guest.width.is_64 else 0xE019, 1, masks)
    current.state.set_gpr(RSP, guest.data + 0x100)
    guest.machine.vmm.entry.reload_segments()
    assert current.events_masked is masks


def test_without_a_callback_the_domain_ends(guest: Guest) -> None:
    load_fs(guest, ABSENT)
    guest.machine.vmm.entry.reload_segments()
    assert guest.dom.state is DomainState.CRASHED
