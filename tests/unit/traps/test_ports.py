"""Port I/O that is emulated: who may, and long string forms in pieces."""

from __future__ import annotations

import pytest

from hypervisor.traps.current import Current
from hypervisor.traps.ports import MemoryFault, emulate_port, may_use
from hypervisor.x86.decode import opcode_of
from hypervisor.x86.flags import RAX, RCX, RDI, RDX, RSI
from tests.support.callers import UNMAPPED, Guest

PORT = 0x2F0


@pytest.fixture(params=["guest_32", "guest_64"])
def guest(request: pytest.FixtureRequest) -> Guest:
    found: Guest = request.getfixturevalue(request.param)
    found.enter().current.state.set_gpr(RDX, PORT)
    return found


def do(guest: Guest, code: str) -> int | None:
    raw = bytes.fromhex(code)
    front = opcode_of(raw, is_64=guest.width.is_64)
    assert front is not None
    return emulate_port(guest.host.current, front, raw, is_64=guest.width.is_64)


def allow(guest: Guest) -> Current:
    guest.vcpu.iopl = 1
    return guest.enter().current


@pytest.mark.parametrize(
    ("code", "length", "value"),
    [
        ("ec", 1, 0x1122_33FF),
        ("66ed", 2, 0x1122_FFFF),
        ("ed", 1, 0xFFFF_FFFF),
        ("e460", 2, 0x1122_33FF),
    ],
    ids=["in al, dx", "in ax, dx", "in eax, dx", "in al, 0x60"],
)
def test_nobody_answers(guest: Guest, code: str, length: int, value: int) -> None:
    current = allow(guest)
    current.state.set_gpr(RAX, 0x1122_3344)
    assert do(guest, code) == length
    assert current.state.gpr(RAX) == value


@pytest.mark.parametrize("code", ["ec", "ee", "e460", "6c", "f36e", "e4"])
def test_port_that_may_not_be_used_is_refused(guest: Guest, code: str) -> None:
    assert do(guest, code) is None


def test_bitmap_has_a_bit_for_each_byte(guest: Guest) -> None:
    current = guest.enter().current
    guest.put(b"\xff" * (PORT // 8) + b"\x7f\xfe\xff")
    guest.vcpu.iobitmap_vaddr, guest.vcpu.iobitmap_ports = guest.data, 65536
    assert may_use(current, PORT + 7, 2)
    assert not may_use(current, PORT + 6, 2)
    assert not may_use(current, PORT + 7, 4)
    guest.vcpu.iobitmap_ports = PORT + 8
    assert may_use(current, PORT + 7, 1)
    assert not may_use(current, PORT + 7, 2)


def test_bitmap_that_is_not_mapped_lets_nobody_in(guest: Guest) -> None:
    guest.vcpu.iobitmap_vaddr, guest.vcpu.iobitmap_ports = UNMAPPED, 65536
    assert not may_use(guest.enter().current, PORT, 1)


def test_long_string_is_moved_in_pieces_that_take_time(guest: Guest) -> None:
    current = allow(guest)
    before = guest.host.now_ns
    current.state.set_gpr(RCX, 1500)
    current.state.set_gpr(RSI, guest.data)
    assert do(guest, "f36e") == 0
    assert (current.state.gpr(RCX), current.state.gpr(RSI)) == (476, guest.data + 1024)
    assert guest.host.now_ns > before
    assert do(guest, "f36e") == 2
    assert (current.state.gpr(RCX), current.state.gpr(RSI)) == (0, guest.data + 1500)


def test_repeated_nothing_moves_nothing(guest: Guest) -> None:
    current = allow(guest)
    current.state.set_gpr(RCX, 0)
    current.state.set_gpr(RDI, UNMAPPED)
    assert do(guest, "f36c") == 2
    assert current.state.gpr(RDI) == UNMAPPED


def test_fault_comes_after_what_could_be_moved(guest: Guest) -> None:
    current = allow(guest)
    end = guest.end_of_memory()
    current.state.set_gpr(RCX, 5)
    current.state.set_gpr(RDI, end - 3)
    with pytest.raises(MemoryFault) as fault:
        do(guest, "f36c")
    assert (fault.value.vaddr, fault.value.error_code) == (end, 2)
    assert (current.state.gpr(RCX), current.state.gpr(RDI)) == (2, end)
