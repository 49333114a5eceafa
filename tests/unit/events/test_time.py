"""What a guest reads as time, at the offsets where it looks."""

from __future__ import annotations

import struct

import pytest

from guests import guest_path
from hypervisor.abi.width import Width
from hypervisor.api import Machine
from hypervisor.events.time import update_time, update_wallclock
from tests.support.callers import Guest, guests

TIME = 32  # of vcpu_time_info in vcpu_info (public/xen.h)
WALL_CLOCK = {32: 2304, 64: 3072}
WALL_CLOCK_HIGH = {32: 2304 + 12 + 24, 64: 3072 + 12}


def wall_clock(guest: Guest) -> tuple[int, ...]:
    """wc_version, wc_sec, wc_nsec, wc_sec_hi."""
    bits = guest.width.bits
    high = struct.unpack_from("<I", guest.words, WALL_CLOCK_HIGH[bits])
    return (*struct.unpack_from("<III", guest.words, WALL_CLOCK[bits]), *high)


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_vcpu_is_told_tsc_and_nanoseconds(width: Width) -> None:
    with guests(width) as (guest,):
        version = struct.unpack_from("<I", guest.words, TIME)[0]
        update_time(guest.host.memory, guest.vcpu, 123_000_000_000)
        told = struct.unpack_from("<I4xQQIbB", guest.words, TIME)
        assert told == (version + 2, 123_000_000_000, 123_000_000_000, 1 << 31, 1, 1)


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_tsc_is_worth_one_nanosecond(width: Width) -> None:
    """The sum that public/xen.h has for its readers."""
    with guests(width) as (guest,):
        update_time(guest.host.memory, guest.vcpu, 1000)
        _, then, system, mul, shift, _ = struct.unpack_from("<I4xQQIbB", guest.words, TIME)
        for tsc in (then, then + 1, then + 999_999):
            assert system + ((tsc - then << shift) * mul >> 32) == tsc


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_wall_clock_is_that_of_system_time_0(width: Width) -> None:
    with guests(width) as (guest,):
        version, *_ = wall_clock(guest)
        update_wallclock(guest.host.memory, guest.dom, 1_066_521_600_000_000_007)
        assert wall_clock(guest) == (version + 2, 1_066_521_600, 7, 0)


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_wall_clock_goes_beyond_2106(width: Width) -> None:
    with guests(width) as (guest,):
        update_wallclock(guest.host.memory, guest.dom, 5_000_000_000 * 10**9)
        assert wall_clock(guest)[1:] == (5_000_000_000 & 0xFFFF_FFFF, 0, 1)


def test_setting_the_wall_clock_tells_every_domain_and_leaves_system_time_alone() -> None:
    with guests(*Width) as those:
        host = those[0].host
        host.cpu.clock.advance_to_ps(3_000_000_500_000)
        host.set_wallclock(1_700_000_000 * 10**9 + 2_000)
        assert host.wallclock_ns == 1_700_000_000 * 10**9 + 2_000
        assert host.now_ns == 3_000_000_500
        for guest in those:
            assert wall_clock(guest)[1:] == (1_700_000_000 - 3, 1_500, 0)


def test_a_domain_has_an_offset_of_its_own() -> None:
    with guests(Width.X86_64, Width.X86_32) as (near, far):
        before = wall_clock(far)
        near.host.set_time_offset(near.dom, -3600)
        assert (wall_clock(near)[1], wall_clock(far)) == (before[1] - 3600, before)
        near.host.set_wallclock(near.host.wallclock_ns + 10**9)  # and keeps it
        assert wall_clock(near)[1] == before[1] - 3599


@pytest.mark.parametrize(("before", "after"), [(0, 2), (6, 8), (7, 10), (0xFFFF_FFFE, 0)])
def test_version_is_even_behind_an_update_whatever_the_guest_wrote(before: int, after: int) -> None:
    with guests(Width.X86_64) as (guest,):
        struct.pack_into("<I", guest.words, TIME, before)
        update_time(guest.host.memory, guest.vcpu, 1)
        assert struct.unpack_from("<I", guest.words, TIME) == (after,)


def test_one_that_runs_alone_is_told_each_second_too() -> None:
    with Machine(memory_mib=32) as machine:
        dom = machine.create(guest_path("clocks", "x86_64"), memory_mib=4, cmdline="watch=1")
        machine.run(time_limit_ns=10**6)
        machine.vmm.cpu.clock.advance_to_ps(3_000_000_000_000)
        machine.run(time_limit_ns=3_100_000_000)
        vcpu = machine.vmm.host.domains[dom.domid].vcpus[0]
        assert vcpu.time_stamp_ns == 3_000_000_000


def test_a_moment_is_told_once_a_second() -> None:
    with guests(Width.X86_64) as (guest,):
        host, clock = guest.host, guest.host.cpu.clock
        guest.enter()
        told = []
        for now_ms in (300, 900, 1000, 1700, 4200):
            clock.advance_to_ps(now_ms * 10**9)
            host.refresh_time(guest.vcpu)
            told.append(struct.unpack_from("<I4xQQ", guest.words, TIME)[1:])
        assert told == [(n, n) for n in (0, 0, 10**9, 10**9, 4 * 10**9)]
        versions = struct.unpack_from("<I", guest.words, TIME)[0]
        host.refresh_time(guest.vcpu)
        assert struct.unpack_from("<I", guest.words, TIME)[0] == versions
