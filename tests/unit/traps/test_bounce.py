"""Frames for the guest's handlers, word by word as Xen builds them."""

from __future__ import annotations

import struct

import pytest

from hypervisor.abi.errors import DomainCrash
from hypervisor.abi.xen import VmAssistType
from hypervisor.domain.trap_state import Callback, TrapGate
from hypervisor.traps import bounce
from hypervisor.traps.current import Current
from hypervisor.x86.flags import CS, DS, R11, RCX, RSP, SS
from tests.support.callers import Guest, hole

IF, TF, NT, RF, AC = 1 << 9, 1 << 8, 1 << 14, 1 << 16, 1 << 18
VM, IOPL_3 = 1 << 17, 3 << 12
HANDLER = 0x7777
IOPL_ASSIST = 1 << VmAssistType.ARCHITECTURAL_IOPL
DATA_FLAT = (0, 0xFFFF_FFFF, 0x00CF_F300)


def at_kernel(guest: Guest, sp: int, flags: int = IF | 2) -> Current:
    """The guest's kernel is interrupted at 0x1234."""
    current = guest.enter().current
    current.state.rip = 0x1234
    current.state.rflags = flags
    current.state.set_gpr(RSP, sp)
    current.mask_events(False)
    return current


def at_user(guest: Guest, sp: int) -> Current:
    """Its user mode is."""
    current = at_kernel(guest, sp)
    state = current.state
    if guest.width.is_64:
        guest.vcpu.user_root_mfn = guest.vcpu.root_mfn
        bounce.toggle_guest_mode(current)
        state.set_segment(CS, 0xE033, 0, 0xFFFF_FFFF, 0x00AF_FB00)
        state.set_segment(SS, 0xE02B, *DATA_FLAT)
    else:
        state.set_segment(CS, 0xE02B, 0, 0xFFFF_FFFF, 0x00CF_FB00)
        state.set_segment(SS, 0xE033, *DATA_FLAT)
    state.set_cpl(3)
    return current


def frame(guest: Guest, words: int) -> tuple[int, ...]:
    """What lies at the stack pointer."""
    current = guest.enter().current
    size = guest.width.word_bytes
    raw = current.mem.read_raw(current.state.gpr(RSP), words * size)
    return struct.unpack(f"<{words}{'Q' if size == 8 else 'I'}", raw)


def selectors(current: Current) -> tuple[int, int, int]:
    state = current.state
    return state.segment(CS).selector, state.segment(SS).selector, state.cpl


# --- 32 bits --------------------------------------------------------------------------------------
def test_32_bit_kernel_keeps_its_stack(guest_32: Guest) -> None:
    top = guest_32.data + 0x100
    current = at_kernel(guest_32, top)
    bounce.to_gate(current, TrapGate(0xE019, HANDLER), None)
    assert current.state.gpr(RSP) == top - 12
    assert frame(guest_32, 3) == (0x1234, 0xE019, IF | 2)
    assert (current.state.rip, selectors(current)) == (HANDLER, (0xE019, 0xE021, 1))


def test_32_bit_user_changes_to_the_kernel_stack(guest_32: Guest) -> None:
    current = at_user(guest_32, 0x5000)
    guest_32.vcpu.kernel_ss, guest_32.vcpu.kernel_sp = 0xE021, guest_32.data + 0x200
    bounce.to_gate(current, TrapGate(0xE019, HANDLER), 0xEC)
    assert frame(guest_32, 6) == (0xEC, 0x1234, 0xE02B, IF | 2, 0x5000, 0xE033)
    assert current.state.gpr(RSP) == guest_32.data + 0x200 - 24
    assert selectors(current) == (0xE019, 0xE021, 1)


def test_32_bit_mask_stands_above_cs(guest_32: Guest) -> None:
    current = at_kernel(guest_32, guest_32.data + 0x100)
    current.mask_events(True)
    bounce.to_gate(current, TrapGate(0xE019, HANDLER), None)
    assert frame(guest_32, 3) == (0x1234, 1 << 16 | 0xE019, 2)


def test_stack_pointer_wraps_at_4_gib(guest_32: Guest) -> None:
    current = at_kernel(guest_32, 4)
    with pytest.raises(DomainCrash, match=r"^a frame for the guest's handler: cannot write at 0x"):
        bounce.to_gate(current, TrapGate(0xE019, HANDLER), None)
    assert current.lost_vaddr == 0xFFFF_FFF8


def test_handler_in_a_segment_that_is_none_ends_the_domain(guest_32: Guest) -> None:
    current = at_kernel(guest_32, guest_32.data + 0x100)
    with pytest.raises(DomainCrash, match=r"^the handler's segment cannot be loaded: GP$"):
        bounce.to_gate(current, TrapGate(0x0FF9, HANDLER), None)


def test_kernel_stack_in_a_segment_that_is_none_ends_the_domain(guest_32: Guest) -> None:
    current = at_user(guest_32, 0x5000)
    guest_32.vcpu.kernel_ss = 0x0FF9
    with pytest.raises(DomainCrash, match=r"^the handler's segment cannot be loaded: GP$"):
        bounce.to_gate(current, TrapGate(0xE019, HANDLER), None)


def in_vm86(current: Current, cs: int) -> None:
    """An iret with EFLAGS.VM has brought the program there, with a CS of its choice."""
    current.state.set_segment(CS, cs, cs << 4, 0xFFFF, 0x0000_F300)
    current.state.set_segment(DS, 0x1234, 0x12340, 0xFFFF, 0x0000_F300)
    current.state.rflags |= VM | IOPL_3


def test_32_bit_frame_of_vm86_mode_says_user_mode(guest_32: Guest) -> None:
    current = at_user(guest_32, 0x5000)
    guest_32.vcpu.kernel_ss, guest_32.vcpu.kernel_sp = 0xE021, guest_32.data + 0x200
    in_vm86(current, 0xE019)
    bounce.to_gate(current, TrapGate(0xE019, HANDLER), None)
    assert frame(guest_32, 5) == (0x1234, 0xE01B, IF | 2, 0x5000, 0xE033)
    assert (current.state.rflags, current.state.selector(DS)) == (IF | 2, 0)


# --- 64 bits --------------------------------------------------------------------------------------
def test_64_bit_kernel_is_told_by_its_rpl(guest_64: Guest) -> None:
    top = guest_64.data + 0x100
    current = at_kernel(guest_64, top + 5)
    current.state.set_gpr(RCX, 0xC)
    current.state.set_gpr(R11, 0xB)
    bounce.to_gate(current, TrapGate(0xE033, HANDLER), 0xEC)
    assert frame(guest_64, 8) == (0xC, 0xB, 0xEC, 0x1234, 0xE030, IF | 2, top + 5, 0xE02B)
    assert current.state.gpr(RSP) == top - 64
    assert selectors(current) == (0xE033, 0xE02B, 1)


def test_64_bit_user_changes_stack_page_tables_and_gs(guest_64: Guest) -> None:
    current = at_user(guest_64, 0x5000)
    guest_64.vcpu.kernel_sp = guest_64.data + 0x208
    bounce.to_gate(current, TrapGate(0xE033, HANDLER), None)
    assert guest_64.vcpu.kernel_mode
    assert frame(guest_64, 7)[2:] == (0x1234, 0xE033, IF | 2, 0x5000, 0xE02B)
    assert current.state.gpr(RSP) == guest_64.data + 0x200 - 56


def test_64_bit_frame_of_vm86_mode_says_user_mode(guest_64: Guest) -> None:
    current = at_user(guest_64, 0x5000)
    guest_64.vcpu.kernel_sp = guest_64.data + 0x208
    in_vm86(current, 0xE030)
    bounce.to_gate(current, TrapGate(0xE033, HANDLER), None)
    assert frame(guest_64, 7)[2:5] == (0x1234, 0xE033, IF | 2)
    assert current.state.rflags == IF | 2


def test_64_bit_mask_stands_above_cs(guest_64: Guest) -> None:
    current = at_kernel(guest_64, guest_64.data + 0x100)
    current.mask_events(True)
    bounce.to_gate(current, TrapGate(0xE033, HANDLER), None)
    assert frame(guest_64, 5)[3:] == (1 << 32 | 0xE030, 2)


@pytest.mark.parametrize("sp", [1 << 47, 0xFFFF_8000_0000_1000, 0])
def test_frame_that_is_nowhere_or_xens_ends_the_domain(guest_64: Guest, sp: int) -> None:
    current = at_kernel(guest_64, sp)
    with pytest.raises(DomainCrash, match=r"^a frame for the guest's handler: cannot write at 0x"):
        bounce.to_gate(current, TrapGate(0xE033, HANDLER), None)


# --- both -----------------------------------------------------------------------------------------
@pytest.fixture(params=["guest_32", "guest_64"])
def guest(request: pytest.FixtureRequest) -> Guest:
    found: Guest = request.getfixturevalue(request.param)
    return found


def test_flags_a_handler_must_not_start_with_are_cleared(guest: Guest) -> None:
    current = at_kernel(guest, guest.data + 0x100, IF | TF | NT | RF | AC | 0x8D7)
    bounce.to_gate(current, TrapGate(0xE019, HANDLER), None)
    kept = IF | 0x8D7 | (0 if guest.width.is_64 else AC)
    assert current.state.rflags == kept


def test_virtual_iopl_shows_with_the_assist(guest: Guest) -> None:
    guest.vcpu.iopl = 2
    for assist, iopl in ((0, 0), (IOPL_ASSIST, 2 << 12)):
        guest.dom.vm_assist = assist
        current = at_kernel(guest, guest.data + 0x100)
        bounce.to_gate(current, TrapGate(0xE019, HANDLER), None)
        flags = frame(guest, 5)[4] if guest.width.is_64 else frame(guest, 3)[2]
        assert flags == IF | 2 | iopl


@pytest.mark.parametrize("masks", [False, True])
def test_gate_says_whether_events_are_masked(guest: Guest, masks: bool) -> None:
    current = at_kernel(guest, guest.data + 0x100)
    bounce.to_gate(current, TrapGate(0xE019, HANDLER, 0, masks), None)
    assert current.events_masked is masks


def test_upcall_masks_events_and_is_counted(guest: Guest) -> None:
    current = at_kernel(guest, guest.data + 0x100)
    guest.vcpu.event_callback = Callback(0xE019, HANDLER)
    bounce.to_upcall(current)
    assert current.events_masked
    assert guest.vcpu.stats.upcalls == 1


@pytest.mark.parametrize(
    ("enter", "why"),
    [
        (bounce.to_upcall, "^an event is pending and the guest has no event callback$"),
        (lambda c: bounce.to_failsafe(c, (0,) * 4), "^a segment could not be reloaded and there"),
        (lambda c: bounce.to_gate(c, TrapGate(), None), "^an exception has no handler"),
    ],
    ids=["upcall", "failsafe", "gate"],
)
def test_nowhere_to_go_ends_the_domain(guest: Guest, enter: object, why: str) -> None:
    current = at_kernel(guest, guest.data + 0x100)
    with pytest.raises(DomainCrash, match=why):
        enter(current)  # type: ignore[operator]


def test_handler_cannot_be_entered_on_a_stack_in_xens_region(guest: Guest) -> None:
    current = at_kernel(guest, hole(guest.width) + 0x100)
    with pytest.raises(DomainCrash, match="cannot write at"):
        bounce.to_gate(current, TrapGate(0xE019, HANDLER), None)
