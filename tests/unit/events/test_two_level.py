"""The event bitmaps, byte by byte, where a guest of each width looks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.abi.width import Width
from hypervisor.events.two_level import TwoLevel, nr_ports
from tests.support.callers import Guest, guests

#: Where public/xen.h puts evtchn_pending and evtchn_mask, and in vcpu_info evtchn_pending_sel.
PENDING = 2048
MASK = {Width.X86_32: 2176, Width.X86_32P: 2176, Width.X86_64: 2560}
SELECTOR = {Width.X86_32: 4, Width.X86_32P: 4, Width.X86_64: 8}


@pytest.fixture(params=list(Width), ids=lambda width: width.name)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    with guests(request.param) as (only,):
        only.words[: 2048 + 1024] = bytes(3072)
        yield only


def bits_of(guest: Guest) -> TwoLevel:
    return guest.host.events.bits


def last_port(guest: Guest) -> int:
    return nr_ports(guest.width) - 1


def test_bitmaps_hold_a_port_for_each_bit_of_a_word_of_words() -> None:
    assert [nr_ports(width) for width in Width] == [1024, 1024, 4096]


def test_set_pending_sets_bit_selector_and_upcall(guest: Guest) -> None:
    port = last_port(guest)
    assert bits_of(guest).set_pending(guest.dom, port, guest.vcpu) == (True, True)
    assert guest.words[PENDING + port // 8] == 0x80
    at = SELECTOR[guest.width]
    top = 1 << guest.width.bits - 1
    assert int.from_bytes(guest.words[at : at + guest.width.word_bytes], "little") == top
    assert guest.words[0] == 1


def test_second_port_of_a_word_makes_no_second_upcall(guest: Guest) -> None:
    bits_of(guest).set_pending(guest.dom, 1, guest.vcpu)
    guest.words[0] = 0
    assert bits_of(guest).set_pending(guest.dom, 2, guest.vcpu) == (True, False)
    assert guest.words[PENDING] == 0b110
    assert guest.words[0] == 0


def test_pending_port_is_no_news(guest: Guest) -> None:
    bits_of(guest).set_pending(guest.dom, 1, guest.vcpu)
    assert bits_of(guest).set_pending(guest.dom, 1, guest.vcpu) == (False, False)


def test_masked_port_becomes_pending_without_an_upcall(guest: Guest) -> None:
    guest.words[MASK[guest.width]] = 0b10
    assert bits_of(guest).set_pending(guest.dom, 1, guest.vcpu) == (True, False)
    assert guest.words[PENDING] == 0b10
    assert bytes(guest.words[:16]) == bytes(16)


def test_unmask_raises_what_was_waiting(guest: Guest) -> None:
    guest.words[MASK[guest.width]] = 0b110
    bits_of(guest).set_pending(guest.dom, 1, guest.vcpu)
    assert bits_of(guest).unmask(guest.dom, 1, guest.vcpu)
    assert guest.words[MASK[guest.width]] == 0b100
    assert guest.words[0] == 1


@pytest.mark.parametrize("masked", [0, 0b10], ids=["unmasked", "masked"])
def test_unmask_with_nothing_waiting_raises_nothing(guest: Guest, masked: int) -> None:
    guest.words[MASK[guest.width]] = masked
    assert not bits_of(guest).unmask(guest.dom, 1, guest.vcpu)
    assert guest.words[0] == 0


def test_unmask_of_an_unmasked_port_does_not_raise_it_again(guest: Guest) -> None:
    bits_of(guest).set_pending(guest.dom, 1, guest.vcpu)
    guest.words[:16] = bytes(16)
    assert not bits_of(guest).unmask(guest.dom, 1, guest.vcpu)
    assert guest.words[0] == 0


def test_registered_vcpu_info_is_where_the_upcall_shows(guest: Guest) -> None:
    elsewhere = guest.dom.p2m[-1] << 12
    guest.vcpu.vcpu_info_maddr = elsewhere
    guest.host.memory.view[elsewhere : elsewhere + 64] = bytes(64)
    bits_of(guest).set_pending(guest.dom, 1, guest.vcpu)
    assert guest.host.memory.view[elsewhere] == 1
    assert guest.words[0] == 0
