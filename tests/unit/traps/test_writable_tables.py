"""Stores to page tables, executed by the CPU and done by the VMM (ro-page-fault.c in Xen)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.abi.width import Width
from hypervisor.domain.trap_state import TrapGate
from hypervisor.mm.audit import audit
from hypervisor.mm.frames import FrameType
from hypervisor.mm.walk import Step, walk
from hypervisor.traps.writable_tables import VMASST_WRITABLE_PAGETABLES
from hypervisor.x86.flags import (
    DR6_BS,
    EFLAGS_TF,
    PFEC_PRESENT,
    PFEC_WRITE,
    RAX,
    RBX,
    RCX,
    RDI,
    RDX,
    RSI,
    RSP,
)
from hypervisor.x86.paging import PTE_P, PTE_PCD, PTE_RW
from hypervisor.x86.write_operations import CF, ZF
from tests.support.callers import BASE, Guest, guests

CODE = 0x100
HANDLER = 0x200
PF, DB = 14, 1
WIDTHS = pytest.mark.parametrize("store", Width, indirect=True, ids=lambda width: width.name)
WITH_8_BYTES = pytest.mark.parametrize(
    "store", [Width.X86_32P, Width.X86_64], indirect=True, ids=lambda width: width.name
)
ONLY_PAE = pytest.mark.parametrize("store", [Width.X86_32P], indirect=True, ids=["X86_32P"])
ONLY_LONG = pytest.mark.parametrize("store", [Width.X86_64], indirect=True, ids=["X86_64"])


class Store:
    """A guest whose RDI points to a page-table entry of its own, which maps its data page."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.caller = guest.enter()
        self.state = self.caller.current.state
        self.tables = guest.dom.page_tables
        steps = self._walk(guest.data)
        self.entry_maddr = steps[-1].entry_maddr
        self.upper_maddr = steps[-2].entry_maddr
        self.vaddr = self.vaddr_of(self.entry_maddr)
        self.before = self.entry
        self.mfn = self.before >> 12 & 0xFFFFF
        guest.dom.vm_assist |= VMASST_WRITABLE_PAGETABLES
        guest.dom.paused = 0
        base = BASE[guest.width]
        cs = 0xE033 if guest.width.is_64 else 0xE019
        guest.vcpu.gates[PF] = TrapGate(cs, base + HANDLER)
        guest.vcpu.gates[DB] = TrapGate(cs, base + HANDLER + 1)
        self.state.set_gpr(RDI, self.vaddr)
        self.state.set_gpr(RSP, base + 0x3F00)

    def _walk(self, vaddr: int) -> tuple[Step, ...]:
        cr3 = self.state.cr3
        return walk(self.guest.host.memory, self.tables.mode, cr3, vaddr).steps

    def vaddr_of(self, maddr: int) -> int:
        """Where the guest has a frame of its own mapped."""
        pfn = self.guest.host.m2p.get(maddr >> 12)
        assert pfn is not None
        return BASE[self.guest.width] + (pfn << 12) + (maddr & 0xFFF)

    @property
    def entry(self) -> int:
        return self.tables.read_entry(self.entry_maddr)

    def run(self, code: str, steps: int = 1) -> None:
        """Let the CPU execute `code`, or the first of its instructions."""
        raw = bytes.fromhex(code)
        rip = BASE[self.guest.width] + CODE
        self.caller.mem.write(rip, raw)
        self.state.rip = rip
        for _ in range(steps):
            self.caller.host.cpu.step()

    @property
    def rip(self) -> int:
        """Relative to the code that ran."""
        return self.state.rip - BASE[self.guest.width] - CODE

    @property
    def faulted(self) -> bool:
        return self.state.rip == BASE[self.guest.width] + HANDLER

    def audit(self) -> None:
        audit(self.guest.host.frames, self.guest.machine.vmm.audit_subjects())


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with guests(request.param) as (only,):
        found = Store(only)
        yield found
        found.audit()


@WIDTHS
def test_a_store_to_a_page_table_is_done(store: Store) -> None:
    store.state.set_gpr(RAX, store.before & ~PTE_RW)
    is_64 = store.guest.width.is_64
    store.run("48 89 07" if is_64 else "89 07")
    assert store.rip == (3 if is_64 else 2)
    assert store.entry == store.before & ~PTE_RW
    assert store.guest.vcpu.stats.table_writes == 1
    assert store.guest.host.frames.type_count[store.mfn] == 0


@WIDTHS
def test_zeroing_an_entry_gives_its_frame_up(store: Store) -> None:
    frames = store.guest.host.frames
    refs = frames.ref_count[store.mfn]
    store.run("48 c7 07 00 00 00 00" if store.guest.width.is_64 else "c7 07 00 00 00 00")
    assert not store.entry & PTE_P
    assert frames.ref_count[store.mfn] == refs - 1


@WIDTHS
def test_a_repeated_store_is_done_entry_by_entry(store: Store) -> None:
    """rep stos over three entries, the direct way to clear a table."""
    count, mode = 3, store.tables.mode
    store.state.set_gpr(RAX, 0)
    words = count * mode.entry_bytes // store.guest.width.word_bytes
    store.state.set_gpr(RCX, words)
    store.run("f3 48 ab" if store.guest.width.is_64 else "f3 ab", steps=words)
    assert store.rip == (3 if store.guest.width.is_64 else 2)
    assert store.state.gpr(RCX) == 0
    assert store.state.gpr(RDI) == store.vaddr + count * mode.entry_bytes
    entries = [
        store.tables.read_entry(store.entry_maddr + at * mode.entry_bytes) for at in range(count)
    ]
    assert entries == [0] * count


@WIDTHS
def test_movs_takes_the_entry_from_memory(store: Store) -> None:
    word = store.guest.width.word_bytes
    new = store.before & ~PTE_RW
    source = BASE[store.guest.width] + 0x3800
    store.caller.mem.write(source, new.to_bytes(8, "little"))
    store.state.set_gpr(RSI, source)
    store.run("48 a5" if store.guest.width.is_64 else "a5")
    assert store.entry == new
    assert store.state.gpr(RSI) == source + word
    assert store.state.gpr(RDI) == store.vaddr + word


@WIDTHS
def test_push_writes_below_the_stack_pointer(store: Store) -> None:
    word = store.guest.width.word_bytes
    store.state.set_gpr(RAX, store.before & ~PTE_RW)
    store.state.set_gpr(RSP, store.vaddr + word)
    store.run("50")
    assert store.entry == store.before & ~PTE_RW
    assert store.state.gpr(RSP) == store.vaddr


@WIDTHS
def test_xchg_gives_the_old_entry(store: Store) -> None:
    store.state.set_gpr(RAX, 0)
    store.run("48 87 07" if store.guest.width.is_64 else "87 07")
    mask = (1 << store.guest.width.bits) - 1
    assert store.state.gpr(RAX) == store.before & mask
    assert not store.entry & mask


@WIDTHS
def test_clearing_a_bit_sets_the_carry_flag(store: Store) -> None:
    store.run("f0 0f ba 37 01")  # lock btr dword [rdi], 1
    assert store.entry == store.before & ~PTE_RW
    assert store.state.rflags & CF
    store.run("f0 0f ba 37 01")
    assert not store.state.rflags & CF


@WIDTHS
def test_a_part_of_an_entry_may_be_written(store: Store) -> None:
    store.run("80 27 fd")  # and byte [rdi], ~RW
    assert store.rip == 3
    assert store.entry == store.before & ~PTE_RW


@WITH_8_BYTES
def test_cmpxchg8b_exchanges_if_equal(store: Store) -> None:
    new = store.before & ~PTE_RW
    old = store.before
    for register, value in (
        (RAX, old & 0xFFFF_FFFF),
        (RDX, old >> 32),
        (RBX, new & 0xFFFF_FFFF),
        (RCX, new >> 32),
    ):
        store.state.set_gpr(register, value)
    store.run("f0 0f c7 0f")
    assert store.entry == new
    assert store.state.rflags & ZF
    store.run("f0 0f c7 0f")
    assert not store.state.rflags & ZF
    assert store.entry == new
    assert store.state.gpr(RAX) == new & 0xFFFF_FFFF


@ONLY_LONG
def test_cmpxchg_of_another_value_writes_nothing(store: Store) -> None:
    store.state.set_gpr(RAX, 5)
    store.run("f0 48 0f b1 17")
    assert store.entry == store.before == store.state.gpr(RAX)
    assert store.guest.vcpu.stats.table_writes == 0
    assert store.rip == 5


@WIDTHS
def test_a_forged_entry_is_the_guests_page_fault(store: Store) -> None:
    """A frame of Xen's, writable: refused, the table untouched, the guest told at its store."""
    store.state.set_gpr(RAX, store.guest.host.mappings.zero_frame << 12 | PTE_P | PTE_RW)
    store.run("48 89 07" if store.guest.width.is_64 else "89 07")
    assert store.faulted
    assert store.entry == store.before
    size = store.guest.width.word_bytes
    error_code, rip = (
        int.from_bytes(store.caller.mem.read(store.state.gpr(RSP) + at, size), "little")
        for at in ((16, 24) if size == 8 else (0, 4))
    )
    assert error_code == PFEC_PRESENT | PFEC_WRITE
    assert rip == BASE[store.guest.width] + CODE


@WIDTHS
def test_bits_that_are_not_allowed_are_the_guests_page_fault(store: Store) -> None:
    store.state.set_gpr(RAX, store.before | PTE_PCD)
    store.run("48 89 07" if store.guest.width.is_64 else "89 07")
    assert store.faulted
    assert store.entry == store.before


@WIDTHS
def test_without_the_assist_it_is_the_guests_page_fault(store: Store) -> None:
    store.guest.dom.vm_assist = 0
    store.run("80 27 fd")
    assert store.faulted
    assert store.entry == store.before


@WIDTHS
def test_a_table_of_tables_is_not_written(store: Store) -> None:
    store.state.set_gpr(RDI, store.vaddr_of(store.upper_maddr))
    upper = store.tables.read_entry(store.upper_maddr)
    store.run("80 27 fe")
    assert store.faulted
    assert store.tables.read_entry(store.upper_maddr) == upper


@WIDTHS
def test_an_unaligned_store_is_not_done(store: Store) -> None:
    store.state.set_gpr(RDI, store.vaddr + 1)
    store.run("66 c7 07 00 00")
    assert store.faulted


@WIDTHS
def test_a_store_of_user_mode_is_not_done(store: Store) -> None:
    assert store.caller.current.in_kernel
    store.state.set_cpl(3)
    store.guest.vcpu.kernel_mode = False
    tables = store.guest.machine.vmm.entry._writable_tables
    assert not tables.store(store.vaddr, PFEC_PRESENT | PFEC_WRITE)


@ONLY_PAE
def test_the_upper_half_first_loses_the_present_bit(store: Store) -> None:
    """The frame that the two halves name for a moment is nobody's."""
    store.state.set_gpr(RDI, store.vaddr + 4)
    store.run("c7 07 01 00 00 00")
    assert store.rip == 6
    assert store.entry == (store.before | 1 << 32) & ~PTE_P


@ONLY_PAE
def test_an_exchange_of_the_upper_half_is_not_mended(store: Store) -> None:
    store.state.set_gpr(RDI, store.vaddr + 4)
    store.state.set_gpr(RAX, 1)
    store.run("87 07")
    assert store.faulted
    assert store.entry == store.before


@ONLY_LONG
def test_the_user_bit_is_forced(store: Store) -> None:
    store.state.set_gpr(RAX, store.before & ~(1 << 52 | 4))
    store.run("48 89 07")
    assert store.entry == store.before | 4 | 1 << 52


@WIDTHS
def test_code_that_is_patched_is_decoded_anew(store: Store) -> None:
    store.run("80 27 fd")
    assert not store.entry & PTE_RW
    store.run("80 0f 02")
    assert store.entry & PTE_RW


@WIDTHS
def test_single_stepping_sees_the_instruction(store: Store) -> None:
    store.state.rflags |= EFLAGS_TF
    store.run("80 27 fd")
    assert store.state.rip == BASE[store.guest.width] + HANDLER + 1
    assert store.guest.vcpu.dr6 & DR6_BS


@WIDTHS
def test_a_segment_descriptor_page_is_not_written(store: Store) -> None:
    frames = store.guest.host.frames
    store.run("80 27 fd")
    store.tables.get_page_and_type(store.mfn, FrameType.SEGDESC)
    store.state.set_gpr(RDI, store.guest.data)
    store.run("80 27 fd")
    assert store.faulted
    store.tables.put_page_and_type(store.mfn)
    assert frames.type_count[store.mfn] == 0
