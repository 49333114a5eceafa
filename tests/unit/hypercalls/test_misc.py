"""vm_assist, physdev_op, segment bases, debug registers, CR0.TS."""

from __future__ import annotations

import pytest

from hypervisor.abi.arch_x86_64 import Segbase
from hypervisor.abi.errno import Errno
from hypervisor.abi.physdev import PhysdevOp, PhysdevSetIobitmap, PhysdevSetIopl
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr, VmAssistCmd, VmAssistType
from hypervisor.x86.flags import CR0_TS, CR4_DE, FS, GS
from tests.support.callers import Guest, hole, refused


# --- vm_assist ------------------------------------------------------------------------------------
def vm_assist(guest: Guest, command: int, kind: int) -> int | None:
    return guest.call(HypercallNr.VM_ASSIST, command, kind)


@pytest.mark.parametrize("kind", VmAssistType)
def test_assist_is_a_bit_that_can_be_set_and_cleared(guest: Guest, kind: int) -> None:
    if kind == VmAssistType.M2P_STRICT and guest.width is not Width.X86_64:
        with refused(Errno.EINVAL, r"^vm_assist type 32 does not exist here$"):
            vm_assist(guest, VmAssistCmd.ENABLE, kind)
        return
    assert vm_assist(guest, VmAssistCmd.ENABLE, kind) == 0
    assert guest.dom.vm_assist == 1 << kind
    assert vm_assist(guest, VmAssistCmd.DISABLE, kind) == 0
    assert guest.dom.vm_assist == 0


def test_type_is_looked_at_before_the_command(guest: Guest) -> None:
    with refused(Errno.EINVAL, r"^vm_assist type 99 does not exist here$"):
        vm_assist(guest, 9, 99)
    with refused(Errno.ENOSYS, r"^vm_assist command 9 is unknown$"):
        vm_assist(guest, 9, VmAssistType.ARCHITECTURAL_IOPL)


def test_arguments_are_32_bits_wide(guest: Guest) -> None:
    assert vm_assist(guest, 1 << 32, 1 << 40 | VmAssistType.ARCHITECTURAL_IOPL) == 0
    assert guest.dom.vm_assist == 1 << VmAssistType.ARCHITECTURAL_IOPL


# --- physdev_op -----------------------------------------------------------------------------------
def physdev(guest: Guest, operation: int, argument: object = None) -> int | None:
    return guest.op(HypercallNr.PHYSDEV_OP, operation, argument)


def test_iopl_is_the_vcpus_own(guest: Guest) -> None:
    assert physdev(guest, PhysdevOp.SET_IOPL, PhysdevSetIopl(3)) == 0
    assert guest.vcpu.iopl == 3
    with refused(Errno.EINVAL, r"^IOPL 4$"):
        physdev(guest, PhysdevOp.SET_IOPL, PhysdevSetIopl(4))


def test_bitmap_may_be_anywhere_but_in_xens_region(guest: Guest) -> None:
    assert physdev(guest, PhysdevOp.SET_IOBITMAP, PhysdevSetIobitmap(0x1000, 65536)) == 0
    assert (guest.vcpu.iobitmap_vaddr, guest.vcpu.iobitmap_ports) == (0x1000, 65536)
    for vaddr, ports in ((0x1000, 65537), (hole(guest.width), 8)):
        with refused(Errno.EINVAL, rf"^a bitmap for {ports} ports at {vaddr:#x}$"):
            physdev(guest, PhysdevOp.SET_IOBITMAP, PhysdevSetIobitmap(vaddr, ports))
    assert guest.vcpu.iobitmap_vaddr == 0x1000


def test_there_are_no_physical_devices(guest: Guest) -> None:
    with refused(Errno.EPERM, r"^no domain here has physical devices$"):
        physdev(guest, PhysdevOp.MAP_PIRQ)
    with refused(Errno.ENOSYS, r"^operation 99 is unknown$"):
        physdev(guest, 99)


# --- set_segment_base -----------------------------------------------------------------------------
def set_base(guest: Guest, which: int, base: int) -> int | None:
    return guest.call(HypercallNr.SET_SEGMENT_BASE, which, base)


def test_bases_are_for_64_bits(guest: Guest) -> None:
    if guest.width.is_64:
        return
    with refused(Errno.ENOSYS, r"^32-bit guests have descriptors for that$"):
        set_base(guest, Segbase.FS, 0)


@pytest.fixture
def guest_64(pair: tuple[Guest, Guest]) -> Guest:
    return pair[1]


def test_each_base_goes_to_its_place(guest_64: Guest) -> None:
    state = guest_64.enter().current.state
    for which, base in ((Segbase.FS, 1), (Segbase.GS_USER, 2), (Segbase.GS_KERNEL, 3)):
        assert set_base(guest_64, which, base << 12) == 0
    assert state.segment(FS).base == 1 << 12
    assert guest_64.vcpu.gs_base_user == 2 << 12
    assert state.segment(GS).base == 3 << 12


@pytest.mark.parametrize("which", [Segbase.FS, Segbase.GS_USER, Segbase.GS_KERNEL, 9])
def test_base_that_is_no_address_is_refused(guest_64: Guest, which: int) -> None:
    with refused(Errno.EINVAL, r"^segment base 0x800000000000 is not canonical$"):
        set_base(guest_64, which, 1 << 47)


def test_unknown_base_is_refused(guest_64: Guest) -> None:
    with refused(Errno.EINVAL, r"^segment base 9 is unknown$"):
        set_base(guest_64, 9, 0)


def test_users_gs_selector_loads_the_base_that_is_not_in_use(guest_64: Guest) -> None:
    state = guest_64.enter().current.state
    set_base(guest_64, Segbase.GS_KERNEL, 0x7000)
    assert set_base(guest_64, Segbase.GS_USER_SEL, 0xE02B) == 0
    assert (state.segment(GS).selector, state.segment(GS).base) == (0xE02B, 0x7000)
    assert guest_64.vcpu.gs_base_user == 0
    assert set_base(guest_64, Segbase.GS_USER_SEL, 0x0FF8) == 0
    assert state.segment(GS).selector == 0


# --- debug registers, CR0.TS ----------------------------------------------------------------------
def set_debugreg(guest: Guest, number: int, value: int) -> int | None:
    return guest.call(HypercallNr.SET_DEBUGREG, number, value)


def get_debugreg(guest: Guest, number: int) -> int | None:
    return guest.call(HypercallNr.GET_DEBUGREG, number)


def test_debug_registers_have_their_fixed_bits(guest: Guest) -> None:
    assert (get_debugreg(guest, 6), get_debugreg(guest, 7)) == (0xFFFF_0FF0, 0x400)
    set_debugreg(guest, 6, 0xFFFF_FFFF)
    set_debugreg(guest, 7, 0)
    assert (get_debugreg(guest, 6), get_debugreg(guest, 7)) == (0xFFFF_EFFF, 0x400)


def test_dr_4_and_5_are_6_and_7(guest: Guest) -> None:
    set_debugreg(guest, 4, 1)
    assert get_debugreg(guest, 6) == get_debugreg(guest, 4) == 0xFFFF_0FF1


def test_breakpoint_addresses_are_the_guests(guest: Guest) -> None:
    assert set_debugreg(guest, 0, guest.data) == 0
    assert get_debugreg(guest, 0) == guest.data
    with refused(Errno.EPERM, r"^breakpoint address 0x[0-9a-f]+ is not the guest's$"):
        set_debugreg(guest, 0, hole(guest.width))


def test_there_is_no_dr_8(guest: Guest) -> None:
    with refused(Errno.ENODEV, r"^debug register 8 does not exist$"):
        set_debugreg(guest, 8, 0)
    assert get_debugreg(guest, 8) == -Errno.ENODEV


def test_general_detect_is_xens(guest: Guest) -> None:
    with refused(Errno.EPERM, r"^DR7.GD is Xen's$"):
        set_debugreg(guest, 7, 1 << 13)


def test_io_breakpoints_need_cr4_de(guest: Guest) -> None:
    enabled_io = 2 << 16 | 1
    assert set_debugreg(guest, 7, enabled_io & ~1) == 0
    with refused(Errno.EPERM, r"^an I/O breakpoint in DR7 0x20001, without CR4.DE$"):
        set_debugreg(guest, 7, enabled_io)
    guest.vcpu.cr4 |= CR4_DE
    assert set_debugreg(guest, 7, enabled_io) == 0


def test_task_switched_is_set_in_the_guests_view_and_in_the_cpu(guest: Guest) -> None:
    state = guest.enter().current.state
    for wanted in (1, 0):
        assert guest.call(HypercallNr.FPU_TASKSWITCH, wanted) == 0
        assert bool(guest.vcpu.cr0 & CR0_TS) is bool(wanted)
        assert bool(state.cr0 & CR0_TS) is bool(wanted)
