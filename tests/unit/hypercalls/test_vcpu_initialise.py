"""VCPUOP_initialise: what a second vCPU may start with, and what it then has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hypervisor.abi.arch_x86 import Vgcf
from hypervisor.abi.errno import Errno
from hypervisor.abi.layout import layout
from hypervisor.abi.vcpu import VcpuOp
from hypervisor.abi.width import Width
from hypervisor.abi.xen import TI_IF, HypercallNr, TrapInfo
from hypervisor.control.vcpu_context import CONTEXT
from hypervisor.domain.domain import DomainState, Vcpu, VcpuState
from hypervisor.machine.state import CpuState
from hypervisor.mm.frames import FrameType
from hypervisor.x86.flags import (
    CR0_TS,
    CS,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_VM,
    FS,
    GS,
    RSP,
    Vector,
)
from tests.support.callers import BASE, Guest, guests, refused

NON_CANONICAL = 1 << 63
HANDLER = 0x40


@pytest.fixture(params=list(Width), ids=lambda width: width.name)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    with guests(request.param, nr_vcpus=3) as (only,):
        yield only


@pytest.fixture
def guest64() -> Iterator[Guest]:
    with guests(Width.X86_64, nr_vcpus=2) as (only,):
        yield only


def context(guest: Guest) -> Any:
    """As a kernel makes it: its own tables, flat segments, in the kernel."""
    shape = layout(CONTEXT[guest.width], guest.width)
    made = shape.unpack_from(bytes(shape.size))
    made.flags = Vgcf.IN_KERNEL
    made.ctrlreg[3] = guest.vcpu.root_mfn << 12
    regs = made.user_regs
    if guest.width.is_64:
        regs.rip, regs.rsp, regs.cs, regs.ss = BASE[guest.width], guest.data, 0xE033, 0xE02B
    else:
        regs.eip, regs.esp, regs.cs, regs.ss = BASE[guest.width], guest.data, 0xE019, 0xE021
        regs.ds = regs.es = 0xE021
        made.event_callback_cs = made.failsafe_callback_cs = 0xE019
    return made


def initialise(guest: Guest, made: Any, vcpu: int = 1) -> int | None:
    shape = layout(type(made), guest.width)
    vaddr = BASE[guest.width]  # 8 KiB of nops that nobody runs
    guest.enter().mem.write(vaddr, shape.pack(made))
    return guest.call(HypercallNr.VCPU_OP, VcpuOp.INITIALISE, vcpu, vaddr)


def op(guest: Guest, operation: VcpuOp, vcpu: int = 1, vaddr: int = 0) -> int | None:
    return guest.call(HypercallNr.VCPU_OP, operation, vcpu, vaddr)


def second(guest: Guest) -> Vcpu:
    return guest.dom.vcpus[1]


def put_on_cpu(guest: Guest, vcpu: Vcpu) -> CpuState:
    """Switch to `vcpu`, an event or fault delivered if one is due."""
    guest.machine.vmm._enter(vcpu)
    return guest.host.cpu.state


# --- life -----------------------------------------------------------------------------------------
def test_a_vcpu_is_initialised_once_and_then_brought_up(guest: Guest) -> None:
    with refused(Errno.EINVAL, "^d1v1 was never initialised$"):
        op(guest, VcpuOp.UP)
    initialise(guest, context(guest))
    assert op(guest, VcpuOp.IS_UP) == 0
    with refused(Errno.EEXIST, "^d1v1 is initialised already$"):
        initialise(guest, context(guest))
    op(guest, VcpuOp.UP)
    assert op(guest, VcpuOp.IS_UP) == 1
    assert second(guest).state is VcpuState.RUNNABLE


def test_the_boot_vcpu_is_initialised_already(guest: Guest) -> None:
    with refused(Errno.EEXIST, "^d1v0 is initialised already$"):
        initialise(guest, context(guest), vcpu=0)


def test_a_context_that_cannot_be_read_is_found_out_first(guest: Guest) -> None:
    with refused(Errno.EFAULT, "is not mapped"):
        op(guest, VcpuOp.INITIALISE, 0, 0x1000)


def test_vgcf_online_brings_it_up_at_once(guest: Guest) -> None:
    made = context(guest)
    made.flags |= Vgcf.ONLINE
    initialise(guest, made)
    assert op(guest, VcpuOp.IS_UP) == 1


def test_going_down_is_no_waking_up(guest: Guest) -> None:
    """VPF_down and VPF_blocked are two flags: who blocks, goes down and comes up still blocks."""
    initialise(guest, context(guest))
    op(guest, VcpuOp.UP)
    guest.host.block(second(guest), VcpuState.BLOCKED)
    op(guest, VcpuOp.DOWN)
    assert op(guest, VcpuOp.IS_UP) == 0
    op(guest, VcpuOp.UP)
    assert second(guest).state is VcpuState.BLOCKED


def test_an_event_ends_the_block_of_a_vcpu_that_is_down(guest: Guest) -> None:
    initialise(guest, context(guest))
    op(guest, VcpuOp.UP)
    guest.host.block(second(guest), VcpuState.BLOCKED)
    op(guest, VcpuOp.DOWN)
    port = guest.host.events.bind_ipi(guest.dom, 1)
    guest.host.events.send(guest.dom, port)
    assert second(guest).state is VcpuState.DOWN
    op(guest, VcpuOp.UP)
    assert second(guest).state is VcpuState.RUNNABLE


# --- what it has then -----------------------------------------------------------------------------
def test_registers_are_the_contexts(guest: Guest) -> None:
    made = context(guest)
    regs = made.user_regs
    names = ("r13", "rbx") if guest.width.is_64 else ("ebp", "ebx")
    for value, name in enumerate(names, start=0x11):
        setattr(regs, name, value)
    flags = "rflags" if guest.width.is_64 else "eflags"
    setattr(regs, flags, EFLAGS_IOPL | EFLAGS_VM | 0x81)
    initialise(guest, made)
    state = put_on_cpu(guest, second(guest))
    numbers = (13, 3) if guest.width.is_64 else (5, 3)
    assert [state.gpr(number) for number in numbers] == [0x11, 0x12]
    assert state.rip == BASE[guest.width]
    assert state.gpr(RSP) == guest.data
    assert state.rflags == EFLAGS_IF | 0x83
    assert second(guest).iopl == 3
    assert state.cpl == 1
    assert state.cr3 == guest.vcpu.root_mfn << 12


def test_it_has_a_gdt_window_of_its_own(guest: Guest) -> None:
    initialise(guest, context(guest))
    state = put_on_cpu(guest, second(guest))
    assert state.gdt[0] == guest.dom.windows.gdt_vaddr(0) + 0x20000
    assert state.ldt.base == guest.dom.windows.ldt_vaddr(1)


def test_gates_and_callbacks_are_by_place_and_fixed_up(guest: Guest) -> None:
    made = context(guest)
    address = BASE[guest.width] + HANDLER
    made.trap_ctxt[14] = TrapInfo(vector=77, flags=TI_IF, cs=0xE010, address=address)
    made.event_callback_eip = made.failsafe_callback_eip = address
    made.flags |= Vgcf.FAILSAFE_DISABLES_EVENTS
    initialise(guest, made)
    gate = second(guest).gates[14]
    assert (gate.cs & 3, gate.address, gate.masks_events) == (
        3 if guest.width.is_64 else 1, address, True,
    )  # fmt: skip
    assert second(guest).event_callback.address == address
    assert not second(guest).event_callback.masks_events
    assert second(guest).failsafe_callback.masks_events


def test_bases_count_in_kernel_and_user_mode(guest64: Guest) -> None:
    made = context(guest64)
    made.fs_base, made.gs_base_kernel, made.gs_base_user = 0x1000, 0x2000, 0x3000
    initialise(guest64, made)
    state = put_on_cpu(guest64, second(guest64))
    assert (state.segment(FS).base, state.segment(GS).base) == (0x1000, 0x2000)
    assert second(guest64).gs_base_user == 0x3000


def test_a_64_bit_vcpu_may_start_in_user_mode(guest64: Guest) -> None:
    made = context(guest64)
    made.flags = 0
    made.ctrlreg[1] = made.ctrlreg[3]
    made.gs_base_kernel, made.gs_base_user = 0x2000, 0x3000
    initialise(guest64, made)
    state = put_on_cpu(guest64, second(guest64))
    assert state.cpl == 3
    assert not second(guest64).kernel_mode
    assert (state.segment(GS).base, second(guest64).gs_base_user) == (0x3000, 0x2000)


def test_control_and_debug_registers(guest: Guest) -> None:
    made = context(guest)
    made.ctrlreg[0] = CR0_TS
    made.ctrlreg[4] = 1 << 2  # TSD
    made.debugreg[0] = 0x1234
    made.debugreg[7] = 3
    initialise(guest, made)
    vcpu = second(guest)
    state = put_on_cpu(guest, vcpu)
    assert vcpu.cr0 & state.cr0 & CR0_TS
    assert vcpu.cr4 & state.cr4 & 1 << 2
    assert (vcpu.dr[0], vcpu.dr6, vcpu.dr7) == (0x1234, 0xFFFF0FF0, 0x403)


def test_a_selector_that_cannot_be_loaded_faults_at_the_first_instruction(guest: Guest) -> None:
    made = context(guest)
    address = BASE[guest.width] + HANDLER
    kernel_cs = 0xE033 if guest.width.is_64 else 0xE019
    made.trap_ctxt[Vector.GP] = TrapInfo(13, 0, kernel_cs, address)
    made.user_regs.cs = 0x0FF8 | 3 if guest.width.is_64 else 0x0FF8 | 1
    initialise(guest, made)
    state = put_on_cpu(guest, second(guest))
    assert (state.rip, state.selector(CS), state.cpl) == (address, kernel_cs, 1)
    size = guest.width.word_bytes
    error_code, rip = (
        int.from_bytes(guest.host.current.mem.read(state.linear_rsp + at, size), "little")
        for at in ((16, 24) if guest.width.is_64 else (0, 4))
    )
    assert (error_code, rip) == (0x0FF8, BASE[guest.width])


def test_without_a_handler_for_that_the_domain_crashes(guest: Guest) -> None:
    made = context(guest)
    made.user_regs.ss = 0x0FF8 | 3
    initialise(guest, made)
    put_on_cpu(guest, second(guest))
    assert guest.dom.state is DomainState.CRASHED


def test_a_data_segment_that_cannot_be_loaded_means_the_failsafe_callback(guest: Guest) -> None:
    made = context(guest)
    made.failsafe_callback_eip = BASE[guest.width] + HANDLER
    made.user_regs.fs = 0x0FF8 | 3
    initialise(guest, made)
    state = put_on_cpu(guest, second(guest))
    assert state.rip == BASE[guest.width] + HANDLER
    assert state.selector(FS) == 0


# --- refusals: nothing is held afterwards (the machine is audited) --------------------------------
def edit_64(name: str, value: int) -> Callable[[Any], None]:
    return lambda made: setattr(made, name, value)


def edit_list(name: str, at: int, value: int) -> Callable[[Any], None]:
    return lambda made: getattr(made, name).__setitem__(at, value)


def unaligned_ldt(made: Any) -> None:
    made.ldt_base, made.ldt_ents = 0x1008, 1


BAD_64: dict[str, Callable[[Any], None]] = {
    name: edit_64(name, NON_CANONICAL)
    for name in (
        "kernel_sp", "fs_base", "gs_base_kernel", "gs_base_user",
        "event_callback_eip", "failsafe_callback_eip", "syscall_callback_eip",
    )
} | {
    "rip": lambda made: setattr(made.user_regs, "rip", NON_CANONICAL),
    "rsp": lambda made: setattr(made.user_regs, "rsp", NON_CANONICAL),
    "trap_ctxt": lambda made: setattr(made.trap_ctxt[200], "address", NON_CANONICAL),
    "dr0": edit_list("debugreg", 0, 0xFFFF_8000_0000_0000),
    "dr6": edit_list("debugreg", 6, 1 << 32),
    "dr7": edit_list("debugreg", 7, 1 << 32),
    "ldt_base": edit_64("ldt_base", 0xFFFF_8000_0000_0000),
    "flags": edit_64("flags", 0),
}  # fmt: skip
BAD: dict[str, Callable[[Any], None]] = {
    "ldt_unaligned": unaligned_ldt,
    "ldt_ents": edit_64("ldt_ents", 8193),
    "gdt_ents": edit_64("gdt_ents", 16 * 512 + 1),
    "gdt_reserved": edit_64("gdt_ents", 7169),
    "cr3": edit_list("ctrlreg", 3, 0),
}


@pytest.mark.parametrize("bad", BAD_64)
def test_what_no_64_bit_vcpu_may_start_with(guest64: Guest, bad: str) -> None:
    made = context(guest64)
    BAD_64[bad](made)
    with refused(Errno.EINVAL, "."):
        initialise(guest64, made)
    assert not second(guest64).is_initialised


@pytest.mark.parametrize("bad", BAD)
def test_what_no_vcpu_may_start_with(guest: Guest, bad: str) -> None:
    made = context(guest)
    BAD[bad](made)
    with refused(Errno.EINVAL, "."):
        initialise(guest, made)
    assert not second(guest).is_initialised
    initialise(guest, context(guest))  # and it can be tried again


def test_a_page_in_use_as_memory_is_no_root(guest: Guest) -> None:
    made = context(guest)
    made.ctrlreg[3] = guest.spare_frame() << 12
    with refused(Errno.EINVAL, "not usable as"):
        initialise(guest, made)


def test_a_refused_user_table_gives_the_kernels_back(guest64: Guest) -> None:
    made = context(guest64)
    made.ctrlreg[1] = guest64.spare_frame() << 12
    root = guest64.vcpu.root_mfn
    before = guest64.host.frames.type_count[root]
    with refused(Errno.EINVAL, "."):
        initialise(guest64, made)
    assert guest64.host.frames.type_count[root] == before


def test_each_vcpu_holds_its_root(guest: Guest) -> None:
    root = guest.vcpu.root_mfn
    before = guest.host.frames.type_count[root]
    initialise(guest, context(guest))
    initialise(guest, context(guest), vcpu=2)
    assert guest.host.frames.type_count[root] == before + 2
    assert guest.host.frames.type[root] == guest.dom.page_tables.root_type
    assert guest.host.frames.type[root] != FrameType.WRITABLE


# --- NMIs -----------------------------------------------------------------------------------------
def with_nmi_gate(guest: Guest) -> Any:
    made = context(guest)
    kernel_cs = 0xE033 if guest.width.is_64 else 0xE019
    made.trap_ctxt[Vector.NMI] = TrapInfo(2, TI_IF, kernel_cs, BASE[guest.width] + HANDLER)
    return made


def is_fast(guest: Guest) -> bool:
    """Whether machine code may do the guest's irets."""
    return guest.host.current.fast._is_usual


def test_an_nmi_enters_its_handler_once_until_an_iret(guest: Guest) -> None:
    initialise(guest, with_nmi_gate(guest))
    op(guest, VcpuOp.UP)
    op(guest, VcpuOp.SEND_NMI)
    vmm, vcpu = guest.machine.vmm, second(guest)
    state = put_on_cpu(guest, vcpu)
    assert state.rip == BASE[guest.width] + HANDLER
    assert guest.host.current.events_masked
    assert not is_fast(guest)  # so that the iret is seen
    sp = state.gpr(RSP)
    guest.host.send_nmi(vcpu)
    vmm.entry.deliver_now()
    assert state.gpr(RSP) == sp
    vmm._after_iret()
    assert is_fast(guest)
    vmm.entry.deliver_now()
    assert state.gpr(RSP) < sp


def test_an_nmi_without_a_handler_is_lost(guest: Guest) -> None:
    initialise(guest, context(guest))
    op(guest, VcpuOp.SEND_NMI)
    state = put_on_cpu(guest, second(guest))
    assert state.rip == BASE[guest.width]
    assert not second(guest).nmi_pending


def test_an_nmi_ends_a_block(guest: Guest) -> None:
    initialise(guest, with_nmi_gate(guest))
    op(guest, VcpuOp.UP)
    guest.host.block(second(guest), VcpuState.BLOCKED)
    op(guest, VcpuOp.SEND_NMI)
    assert second(guest).state is VcpuState.RUNNABLE


def test_send_nmi_takes_no_argument(guest: Guest) -> None:
    with refused(Errno.EINVAL, "^send_nmi takes no argument, not 0x1000$"):
        op(guest, VcpuOp.SEND_NMI, vaddr=0x1000)
