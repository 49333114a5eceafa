"""Where Xen enters the guest: trap table, callbacks, NMI, kernel stack."""

from __future__ import annotations

import pytest

from hypervisor.abi.callback import (
    CALLBACKF_MASK_EVENTS,
    CallbackOp,
    CallbackRegister,
    CallbackType,
    CallbackUnregister,
)
from hypervisor.abi.errno import Errno
from hypervisor.abi.layout import layout
from hypervisor.abi.nmi import XennmiCallback, XennmiOp
from hypervisor.abi.xen import HypercallNr, TrapInfo
from hypervisor.domain.trap_state import Callback, TrapGate
from hypervisor.hypercalls.table import Preempted
from tests.support.callers import UNMAPPED, Guest, hole, refused

NOT_CANONICAL = 1 << 62
KERNEL_CS = {32: 0xE019, 64: 0xE033}


def cs_of(guest: Guest) -> int:
    return KERNEL_CS[guest.width.bits]


def address(guest: Guest, low: int) -> int:
    """A callback's address as the structure has it: 32-bit ones are cs and eip."""
    return low if guest.width.is_64 else low << 32 | KERNEL_CS[32]


def table(guest: Guest, *gates: TrapInfo, end: bool = True) -> int:
    shape = layout(TrapInfo, guest.width)
    raw = b"".join(shape.pack(gate) for gate in gates)
    return guest.put(raw + (bytes(shape.size) if end else b""))


# --- set_trap_table -------------------------------------------------------------------------------
def test_trap_table_sets_its_gates_and_leaves_the_others(guest: Guest) -> None:
    guest.vcpu.gates[3] = TrapGate(1, 2, 3)
    gates = (TrapInfo(14, 4, cs_of(guest), 0x1111), TrapInfo(0x80, 3, cs_of(guest), 0x2222))
    assert guest.call(HypercallNr.SET_TRAP_TABLE, table(guest, *gates)) == 0
    assert guest.vcpu.gates[14] == TrapGate(cs_of(guest), 0x1111, 0, masks_events=True)
    assert guest.vcpu.gates[0x80] == TrapGate(cs_of(guest), 0x2222, 3)
    assert guest.vcpu.gates[3] == TrapGate(1, 2, 3)


def test_null_table_clears_all_gates(guest: Guest) -> None:
    guest.vcpu.gates[200] = TrapGate(1, 2, 3)
    assert guest.call(HypercallNr.SET_TRAP_TABLE, 0) == 0
    assert set(map(str, guest.vcpu.gates)) == {str(TrapGate())}


def test_selector_gets_the_ring_of_the_kernel(guest: Guest) -> None:
    guest.call(HypercallNr.SET_TRAP_TABLE, table(guest, TrapInfo(1, 0, 0x10, 0x1111)))
    assert guest.vcpu.gates[1].cs == (0x13 if guest.width.is_64 else 0x11)


def test_handler_no_code_can_be_at_is_refused_by_64_bits(guest: Guest) -> None:
    gates = (TrapInfo(1, 0, cs_of(guest), 0x1111), TrapInfo(2, 0, cs_of(guest), 0x4000_0000))
    if not guest.width.is_64:
        assert guest.call(HypercallNr.SET_TRAP_TABLE, table(guest, *gates)) == 0
        return
    gates[1].address = NOT_CANONICAL
    with refused(Errno.EINVAL, "^handler address 0x4000000000000000 is not canonical$"):
        guest.call(HypercallNr.SET_TRAP_TABLE, table(guest, *gates))
    assert guest.vcpu.gates[1].address == 0x1111
    assert guest.vcpu.gates[2].address == 0


def test_table_that_ends_in_nothing_is_a_fault_and_keeps_what_came_before(guest: Guest) -> None:
    size = layout(TrapInfo, guest.width).size
    gate = layout(TrapInfo, guest.width).pack(TrapInfo(1, 0, cs_of(guest), 0x1111))
    end = guest.end_of_memory()
    guest.enter().mem.write(end - size, gate)
    with refused(Errno.EFAULT, rf"^cannot read at {end:#x}: it is not mapped$"):
        guest.call(HypercallNr.SET_TRAP_TABLE, end - size)
    assert guest.vcpu.gates[1].address == 0x1111


def test_table_without_an_end_is_read_in_pieces(guest: Guest) -> None:
    shape = layout(TrapInfo, guest.width)
    gate = shape.pack(TrapInfo(7, 0, cs_of(guest), 0x1111))
    end = guest.end_of_memory()
    start = end - 2000 * shape.size
    guest.enter().mem.write(start, gate * 2000)
    with pytest.raises(Preempted) as later:
        guest.call(HypercallNr.SET_TRAP_TABLE, start)
    (rest,) = later.value.arguments
    assert rest == start + 1024 * shape.size
    with refused(Errno.EFAULT, "is not mapped$"):
        guest.call(HypercallNr.SET_TRAP_TABLE, rest)


def test_table_in_xens_region_is_a_fault(guest: Guest) -> None:
    with refused(Errno.EFAULT, "^cannot read at"):
        guest.call(HypercallNr.SET_TRAP_TABLE, hole(guest.width))


# --- callbacks ------------------------------------------------------------------------------------
def register(guest: Guest, kind: int, low: int, flags: int = 0) -> None:
    argument = CallbackRegister(kind, flags, address(guest, low))
    guest.op(HypercallNr.CALLBACK_OP, CallbackOp.REGISTER, argument)


def unregister(guest: Guest, kind: int) -> None:
    guest.op(HypercallNr.CALLBACK_OP, CallbackOp.UNREGISTER, CallbackUnregister(kind, 0))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (CallbackType.EVENT, "event_callback"),
        (CallbackType.FAILSAFE, "failsafe_callback"),
        (CallbackType.SYSENTER, "sysenter_callback"),
        (CallbackType.SYSCALL32, "syscall32_callback"),
    ],
)
def test_registered_callback_is_where_xen_enters(guest: Guest, kind: int, name: str) -> None:
    register(guest, kind, 0x1234)
    assert getattr(guest.vcpu, name) == Callback(cs_of(guest), 0x1234)
    register(guest, kind, 0x5678, CALLBACKF_MASK_EVENTS)
    assert getattr(guest.vcpu, name) == Callback(cs_of(guest), 0x5678, masks_events=True)


def test_syscall_callback_is_for_64_bits(guest: Guest) -> None:
    if guest.width.is_64:
        register(guest, CallbackType.SYSCALL, 0x1234)
        assert guest.vcpu.syscall_callback.address == 0x1234
        return
    with refused(Errno.ENOSYS, "^callback type 2 is unknown$"):
        register(guest, CallbackType.SYSCALL, 0x1234)


@pytest.mark.parametrize("kind", [CallbackType.SYSENTER_DEPRECATED, 6, 8, 99])
def test_unknown_type_is_refused(guest: Guest, kind: int) -> None:
    with refused(Errno.ENOSYS, rf"^callback type {kind} is unknown$"):
        register(guest, kind, 0x1234)
    with refused(Errno.ENOSYS, rf"^callback {kind} cannot be unregistered$"):
        unregister(guest, kind)


def test_callback_no_code_can_be_at_is_refused(guest: Guest) -> None:
    if guest.width.is_64:
        with refused(Errno.EINVAL, "is not canonical$"):
            register(guest, CallbackType.EVENT, NOT_CANONICAL)


@pytest.mark.parametrize(
    "kind",
    [
        CallbackType.EVENT,
        CallbackType.FAILSAFE,
        CallbackType.SYSENTER,
        CallbackType.SYSCALL32,
    ],
)
def test_callbacks_stay(guest: Guest, kind: int) -> None:
    with refused(Errno.EINVAL, rf"^callback {int(kind)} cannot be unregistered$"):
        unregister(guest, kind)


def test_unknown_operation_is_refused_differently_by_width(guest: Guest) -> None:
    with refused(Errno.ENOSYS if guest.width.is_64 else Errno.EINVAL, "^operation 9 is unknown$"):
        guest.op(HypercallNr.CALLBACK_OP, 9)


def test_set_callbacks_sets_them_all_without_their_flags(guest: Guest) -> None:
    register(guest, CallbackType.FAILSAFE, 1, CALLBACKF_MASK_EVENTS)
    cs = cs_of(guest)
    arguments = (0x11, 0x22, 0x33, 0) if guest.width.is_64 else (cs, 0x11, cs, 0x22)
    assert guest.call(HypercallNr.SET_CALLBACKS, *arguments) == 0
    assert guest.vcpu.event_callback == Callback(cs, 0x11)
    assert guest.vcpu.failsafe_callback == Callback(cs, 0x22)
    assert guest.vcpu.syscall_callback.address == (0x33 if guest.width.is_64 else 0)


def test_set_callbacks_passes_over_what_is_not_canonical(guest: Guest) -> None:
    if guest.width.is_64:
        assert guest.call(HypercallNr.SET_CALLBACKS, NOT_CANONICAL, 0x22, 0x33, 0) == 0
        assert guest.vcpu.event_callback.address == 0
        assert guest.vcpu.failsafe_callback.address == 0x22


# --- NMI ------------------------------------------------------------------------------------------
def test_nmi_callback_is_the_gate_of_vector_2(guest: Guest) -> None:
    argument = XennmiCallback(0x1234, 0)
    assert guest.op(HypercallNr.NMI_OP, XennmiOp.REGISTER_CALLBACK, argument) == 0
    assert guest.vcpu.gates[2] == TrapGate(cs_of(guest), 0x1234, 0, masks_events=True)
    assert guest.op(HypercallNr.NMI_OP, XennmiOp.UNREGISTER_CALLBACK) == 0
    assert guest.vcpu.gates[2] == TrapGate()


def test_nmi_callback_by_callback_op(guest: Guest) -> None:
    register(guest, CallbackType.NMI, 0x1234)
    assert guest.vcpu.gates[2].address == 0x1234
    unregister(guest, CallbackType.NMI)
    assert guest.vcpu.gates[2] == TrapGate()


def test_nmi_op_refuses_what_it_does_not_know(guest: Guest) -> None:
    with refused(Errno.ENOSYS, "^operation 9 is unknown$"):
        guest.op(HypercallNr.NMI_OP, 9)
    with refused(Errno.EFAULT, "is not mapped$"):
        guest.call(HypercallNr.NMI_OP, XennmiOp.REGISTER_CALLBACK, UNMAPPED)


# --- stack_switch ---------------------------------------------------------------------------------
@pytest.mark.parametrize("ss", [0x10, 0x13])
def test_kernel_stack_has_the_kernels_ring(guest: Guest, ss: int) -> None:
    assert guest.call(HypercallNr.STACK_SWITCH, ss, 0x1000) == 0
    ring = 3 if guest.width.is_64 or ss & 3 == 3 else 1
    assert (guest.vcpu.kernel_ss, guest.vcpu.kernel_sp) == (0x10 | ring, 0x1000)
