"""LDT pages: mapped when first looked at, and never read unchecked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.abi.layout import layout
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr, MmuextCmd, MmuextOp
from hypervisor.domain.domain import CR2_OFFSET
from hypervisor.domain.trap_state import TrapGate
from hypervisor.mm.audit import audit
from hypervisor.mm.frames import FrameType
from hypervisor.mm.walk import walk
from hypervisor.traps.segments import read_descriptor
from hypervisor.x86.descriptor import DESC_ACCESSED, desc_dpl
from hypervisor.x86.flags import FS, RAX, RSP
from hypervisor.x86.paging import PTE_P, PTE_RW
from tests.support.callers import BASE, UNMAPPED, Guest, guests

CODE, HANDLER = 0x100, 0x200
GP, PF = 13, 14
DATA_DPL0 = 0x00CF_9200_0000_FFFF
TSS = 0x0000_8900_0000_0067
LOAD_FS = "8e e0"  # mov fs, ax
SELECTOR = 8 | 4 | 1


class Ldt:
    """A guest with descriptors in its data page."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.caller = guest.enter()
        self.state = self.caller.current.state
        self.frames = guest.host.frames
        steps = walk(
            guest.host.memory, guest.dom.page_tables.mode, self.state.cr3, guest.data
        ).steps
        self.leaf = steps[-1]
        self.mfn = self.leaf.entry >> 12 & 0xFFFFF
        guest.dom.paused = 0
        cs = 0xE033 if guest.width.is_64 else 0xE019
        for vector in (GP, PF):
            guest.vcpu.gates[vector] = TrapGate(cs, BASE[guest.width] + HANDLER + vector)

    def set(self, *descriptors: int, vaddr: int | None = None) -> None:
        """As MMUEXT_SET_LDT."""
        self.guest.put(b"".join(desc.to_bytes(8, "little") for desc in descriptors))
        where = self.guest.data if vaddr is None else vaddr
        op = MmuextOp(cmd=MmuextCmd.SET_LDT, arg1=where, arg2=len(descriptors))
        raw_at = self.guest.data + 0x800
        self._call(op, raw_at)

    def _call(self, op: MmuextOp, at: int) -> None:
        self.caller.mem.write(at, layout(MmuextOp, self.guest.width).pack(op))
        assert self.guest.call(HypercallNr.MMUEXT_OP, at, 1, 0, 0x7FF0) == 0

    def make_read_only(self) -> None:
        """The guest lets go of its writable mapping."""
        entry = self.guest.dom.page_tables.read_entry(self.leaf.entry_maddr)
        self.guest.dom.page_tables.update_entry(self.leaf.entry_maddr, entry & ~PTE_RW)
        self.caller.host.flush_tlb()

    def load_fs(self) -> None:
        """mov fs, SELECTOR, by the CPU; as often as it is tried again."""
        rip = BASE[self.guest.width] + CODE
        self.caller.mem.write(rip, bytes.fromhex(LOAD_FS))
        self.state.rip = rip
        self.state.set_gpr(RAX, SELECTOR)
        self.state.set_gpr(RSP, BASE[self.guest.width] + 0x3F00)
        for _ in range(3):
            if self.state.rip == rip:
                self.caller.host.cpu.step()

    @property
    def handler(self) -> int:
        """The vector whose handler RIP is in, negative if in none."""
        return self.state.rip - BASE[self.guest.width] - HANDLER


@pytest.fixture(params=Width, ids=lambda width: width.name)
def ldt(request: pytest.FixtureRequest) -> Iterator[Ldt]:
    with guests(request.param) as (only,):
        found = Ldt(only)
        yield found
        audit(only.host.frames, only.machine.vmm.audit_subjects())


def test_a_page_is_mapped_when_first_used(ldt: Ldt) -> None:
    ldt.set(0, DATA_DPL0)
    ldt.make_read_only()
    assert ldt.frames.type_count[ldt.mfn] == 0
    ldt.load_fs()
    assert ldt.state.segment(FS).selector == SELECTOR
    assert ldt.frames.type[ldt.mfn] == FrameType.SEGDESC
    desc = ldt.guest.host.memory.u64[(ldt.mfn << 9) + 1]
    assert desc & DESC_ACCESSED
    assert desc_dpl(desc) == (3 if ldt.guest.width.is_64 else 1)


def test_a_page_that_is_mapped_writable_is_a_fault_in_the_guests_ldt(ldt: Ldt) -> None:
    ldt.set(0, DATA_DPL0)
    ldt.load_fs()
    assert ldt.handler == PF
    size = ldt.guest.width.word_bytes
    at = ldt.guest.vcpu.vcpu_info_maddr + CR2_OFFSET[size]
    cr2 = int.from_bytes(ldt.guest.host.memory.view[at : at + size], "little")
    assert cr2 == ldt.guest.data + 8


def test_a_page_that_is_not_there_is_a_fault_in_the_guests_ldt(ldt: Ldt) -> None:
    ldt.set(0, DATA_DPL0, vaddr=UNMAPPED)
    ldt.load_fs()
    assert ldt.handler == PF


def test_a_page_with_a_descriptor_that_may_not_be_is_a_fault(ldt: Ldt) -> None:
    ldt.set(0, DATA_DPL0, TSS)
    ldt.make_read_only()
    ldt.load_fs()
    assert ldt.handler == PF
    assert ldt.frames.type_count[ldt.mfn] == 0


def test_the_vmm_reads_no_descriptor_unchecked(ldt: Ldt) -> None:
    """What is still writable may have any privilege: an iret to it must not find it."""
    ldt.set(0, DATA_DPL0)
    current = ldt.caller.current
    assert read_descriptor(current, SELECTOR) is None
    ldt.make_read_only()
    desc = read_descriptor(current, SELECTOR)
    assert desc is not None
    assert desc_dpl(desc) > 0
    assert read_descriptor(current, SELECTOR + 8) is None


def test_another_ldt_lets_the_page_go(ldt: Ldt) -> None:
    ldt.set(0, DATA_DPL0)
    ldt.make_read_only()
    ldt.load_fs()
    ldt.guest.host.descriptor_tables.set_ldt(ldt.caller.current, 0, 0)
    assert ldt.frames.type_count[ldt.mfn] == 0
    window = ldt.guest.dom.windows.entry_maddr(0, 16)
    assert not ldt.guest.dom.page_tables.read_entry(window) & PTE_P
