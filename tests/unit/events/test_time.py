"""What a guest reads as time, at the offsets where it looks."""

from __future__ import annotations

import struct

import pytest

from hypervisor.abi.width import Width
from hypervisor.events.time import update_time, update_wallclock
from tests.support.callers import guests

TIME = 32  # of vcpu_time_info in vcpu_info (public/xen.h)
WALL_CLOCK = {32: 2304, 64: 3072}


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_vcpu_is_told_tsc_and_nanoseconds(width: Width) -> None:
    with guests(width) as (guest,):
        version = struct.unpack_from("<I", guest.words, TIME)[0]
        update_time(guest.host.memory, guest.vcpu, 123_456_789_012)
        told = struct.unpack_from("<I4xQQIbB", guest.words, TIME)
        assert told == (version + 2, 123_456_789_012, 123_456_789_012, 1 << 31, 1, 1)


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
        guest.dom.wallclock_offset_ns = 1_066_521_600_000_000_007
        at = WALL_CLOCK[width.bits]
        version = struct.unpack_from("<I", guest.words, at)[0]
        update_wallclock(guest.host.memory, guest.dom)
        assert struct.unpack_from("<III", guest.words, at) == (version + 2, 1_066_521_600, 7)


def test_versions_stay_even() -> None:
    with guests(Width.X86_64) as (guest,):
        guest.vcpu.time_version = 0xFFFF_FFFE
        update_time(guest.host.memory, guest.vcpu, 1)
        assert guest.vcpu.time_version == 0
