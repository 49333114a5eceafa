"""The iret hypercall: what it takes from its frame, and what becomes of a bad one."""

from __future__ import annotations

import struct

import pytest

from hypervisor.abi.arch_x86_64 import VGCF_IN_SYSCALL
from hypervisor.abi.errors import DomainCrash
from hypervisor.abi.xen import VmAssistType
from hypervisor.domain.trap_state import TrapGate
from hypervisor.traps.current import Current
from hypervisor.traps.iret import iret
from hypervisor.x86.flags import CS, DS, ES, R11, RAX, RCX, RSP, SS
from tests.support.callers import UNMAPPED, Guest

IF = 1 << 9
HANDLER = 0x7777
OFFSET = 0x800
GP = 13


def prepare(guest: Guest, *words: int) -> Current:
    """Put a frame at the stack pointer; a handler for #GP waits for what is wrong in it."""
    current = guest.enter().current
    code = "Q" if guest.width.is_64 else "I"
    at = guest.put(struct.pack(f"<{len(words)}{code}", *words), OFFSET)
    current.state.set_gpr(RSP, at)
    guest.vcpu.gates[GP] = TrapGate(0xE033 if guest.width.is_64 else 0xE019, HANDLER)
    guest.vcpu.kernel_ss, guest.vcpu.kernel_sp = 0xE021, guest.data + 0x400
    current.mask_events(True)
    return current


def places(current: Current) -> tuple[int, int, int, int]:
    state = current.state
    return state.rip, state.segment(CS).selector, state.segment(SS).selector, state.cpl


def frame(guest: Guest, words: int) -> tuple[int, ...]:
    current = guest.enter().current
    size = guest.width.word_bytes
    raw = current.mem.read_raw(current.state.gpr(RSP), words * size)
    return struct.unpack(f"<{words}{'Q' if size == 8 else 'I'}", raw)


# --- 32 bits: EAX EIP CS EFLAGS [ESP SS] ----------------------------------------------------------
def test_32_bit_kernel_goes_on_above_the_frame(guest_32: Guest) -> None:
    current = prepare(guest_32, 0xA, 0x1234, 0xE019, IF | 0x8D7)
    iret(current)
    assert places(current) == (0x1234, 0xE019, 0xE021, 1)
    assert current.state.gpr(RSP) == guest_32.data + OFFSET + 16
    assert (current.state.gpr(RAX), current.state.rflags) == (0xA, IF | 0x8D7)
    assert not current.events_masked


def test_32_bit_user_gets_its_stack_and_loses_the_kernels_segments(guest_32: Guest) -> None:
    current = prepare(guest_32, 0, 0x1234, 0xE02B, 2, 0x5000, 0xE033)
    current.state.set_segment(ES, 0xE033, 0, 0xFFFF_FFFF, 0x00CF_F300)
    iret(current)
    assert places(current) == (0x1234, 0xE02B, 0xE033, 3)
    assert current.state.gpr(RSP) == 0x5000
    assert current.state.segment(DS).selector == 0
    assert current.state.segment(ES).selector == 0xE033
    assert current.events_masked


def test_what_stands_above_cs_is_ignored(guest_32: Guest) -> None:
    current = prepare(guest_32, 0, 0x1234, 0xABCD_E019, 2)
    iret(current)
    assert places(current)[1] == 0xE019


def test_interrupts_are_never_off_and_iopl_never_up(guest_32: Guest) -> None:
    current = prepare(guest_32, 0, 0x1234, 0xE019, 3 << 12 | 1 << 17)
    iret(current)
    assert current.state.rflags == IF | 2
    assert guest_32.vcpu.iopl == 0


def test_virtual_iopl_comes_back_with_the_assist(guest_32: Guest) -> None:
    guest_32.dom.vm_assist = 1 << VmAssistType.ARCHITECTURAL_IOPL
    current = prepare(guest_32, 0, 0x1234, 0xE019, 2 << 12)
    iret(current)
    assert guest_32.vcpu.iopl == 2
    assert current.state.rflags == IF | 2


def test_ring_0_ends_the_domain(guest_32: Guest) -> None:
    current = prepare(guest_32, 0, 0x1234, 0xE018, 2)
    with pytest.raises(DomainCrash, match=r"^iret to ring 0: cs 0xe018$"):
        iret(current)


@pytest.mark.parametrize(
    ("cs", "ss", "bad"),
    [(0x0323, 0xE033, 0x320), (0xE033, 0xE033, 0xE030), (0xE02B, 0x0323, 0x320), (0xE02B, 3, 0)],
    ids=["CS empty", "CS data", "SS empty", "SS null"],
)
def test_32_bit_bad_selector_faults_at_the_target(
    guest_32: Guest, cs: int, ss: int, bad: int
) -> None:
    current = prepare(guest_32, 0, 0x1234, cs, IF | 2, 0x5000, ss)
    iret(current)
    assert current.state.rip == HANDLER
    assert frame(guest_32, 6) == (bad, 0x1234, cs, IF | 2, 0x5000, ss)


# --- 64 bits: RAX R11 RCX flags RIP CS RFLAGS RSP SS ----------------------------------------------
def with_user(guest: Guest, *words: int) -> Current:
    current = prepare(guest, *words)
    guest.vcpu.user_root_mfn = guest.vcpu.root_mfn
    return current


def test_64_bit_kernel_is_rpl_0(guest_64: Guest) -> None:
    current = prepare(guest_64, 0xA, 0xB, 0xC, 0, 0x1234, 0xE030, IF, 0x5008, 0xE02B)
    iret(current)
    assert places(current) == (0x1234, 0xE033, 0xE02B, 1)
    registers = [current.state.gpr(r) for r in (RAX, R11, RCX, RSP)]
    assert registers == [0xA, 0xB, 0xC, 0x5008]
    assert guest_64.vcpu.kernel_mode


def test_64_bit_user_is_rpl_3(guest_64: Guest) -> None:
    guest_64.vcpu.gs_base_user = 0x7000
    current = with_user(guest_64, 0, 0, 0, 0, 0x1234, 0xE033, IF, 0x5000, 0xE02B)
    iret(current)
    assert places(current) == (0x1234, 0xE033, 0xE02B, 3)
    assert not guest_64.vcpu.kernel_mode


def test_user_mode_needs_a_page_table(guest_64: Guest) -> None:
    current = prepare(guest_64, 0, 0, 0, 0, 0x1234, 0xE033, IF, 0x5000, 0xE02B)
    with pytest.raises(DomainCrash, match=r"^iret to user mode without a user page table$"):
        iret(current)


def test_in_syscall_leaves_as_sysret_does(guest_64: Guest) -> None:
    current = with_user(guest_64, 0, 0xB, 0xC, VGCF_IN_SYSCALL, 0x1234, 3, IF, 0x5000, 0)
    iret(current)
    assert places(current) == (0x1234, 0xE033, 0xE02B, 3)
    assert (current.state.gpr(RCX), current.state.gpr(R11)) == (0x1234, IF | 2)


@pytest.mark.parametrize(
    ("rip", "cs", "ss", "bad"),
    [
        (0x1234, 0x0323, 0xE02B, 0x320),
        (0x1234, 0xE02B, 0xE02B, 0xE028),
        (0x1234, 0xE033, 0x0323, 0x320),
        (1 << 47, 0xE033, 0xE02B, 0),
    ],
    ids=["CS empty", "CS data", "SS empty", "RIP"],
)
def test_64_bit_bad_frame_faults_at_the_target(
    guest_64: Guest, rip: int, cs: int, ss: int, bad: int
) -> None:
    current = with_user(guest_64, 0, 0, 0, 0, rip, cs, IF | 2, 0x5000, ss)
    iret(current)
    assert current.state.rip == HANDLER
    assert frame(guest_64, 8)[2:] == (bad, rip, cs, IF | 2, 0x5000, ss)
    assert guest_64.vcpu.kernel_mode


# --- both -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["guest_32", "guest_64"])
def test_frame_that_cannot_be_read_ends_the_domain(
    name: str, request: pytest.FixtureRequest
) -> None:
    guest: Guest = request.getfixturevalue(name)
    current = prepare(guest)
    current.state.set_gpr(RSP, UNMAPPED)
    with pytest.raises(DomainCrash, match=r"^the frame for iret: cannot read at 0x1000: it is not"):
        iret(current)
    assert current.lost_vaddr == UNMAPPED
