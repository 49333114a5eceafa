"""Writable page tables: a guest's plain stores to its page tables, done on its behalf.

A page table is mapped read-only to the guest that owns it. With vm_assist's WRITABLE_PAGETABLES the
guest's kernel may write there all the same: the store faults, and what it would have written is
validated and put into the entry exactly as by mmu_update (ptwr_do_page_fault in Xen's
arch/x86/pv/ro-page-fault.c). So a kernel needs no special code where it changes a single entry.

As in Xen this holds for leaf tables (L1) only, for the kernel, for naturally aligned stores of 1,
2, 4 or 8 bytes. A store of less than an entry changes a part of it. What is refused is the guest's
page fault, its tables untouched; but a PAE guest that writes an entry's upper half first, and so
names a frame that it may not, gets that entry without P: the lower half is thought to come next.

Instructions are decoded once: by address, code width and bytes, so that code which is patched is
decoded anew.
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.abi.xen import VmAssistType
from hypervisor.domain.domain import Domain
from hypervisor.machine.state import CR3, RIP
from hypervisor.mm.entries import PAGING_MODE
from hypervisor.mm.frames import FrameType
from hypervisor.mm.guest_memory import GuestFault
from hypervisor.mm.walk import leaf_finder
from hypervisor.traps.current import Current
from hypervisor.x86.decode import MAX_INSTRUCTION
from hypervisor.x86.flags import (
    CS,
    EFLAGS_RF,
    FS,
    PFEC_INSN,
    PFEC_PRESENT,
    PFEC_RESERVED,
    PFEC_WRITE,
)
from hypervisor.x86.memory_write import Address, MemoryWrite, decode
from hypervisor.x86.paging import PAGE_MASK, PAGE_SHIFT, PTE_FRAME, PTE_P, PTE_RW
from hypervisor.x86.write_operations import ARITHMETIC_FLAGS

VMASST_WRITABLE_PAGETABLES: Final = 1 << VmAssistType.WRITABLE_PAGETABLES
_FAULT_BITS: Final = PFEC_PRESENT | PFEC_WRITE | PFEC_RESERVED | PFEC_INSN
_WRITE_TO_PRESENT: Final = PFEC_PRESENT | PFEC_WRITE
_CACHED: Final = 4096  # instructions; more than any kernel has that write page tables
_L1: Final = int(FrameType.L1)
_CODE_L: Final = 1 << 21  # of a segment's flags: 64-bit code
_CODE_D: Final = 1 << 22
_M32: Final = 0xFFFF_FFFF
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF


class WritableTables:
    """Emulates stores to page tables for the guest on the CPU."""

    def __init__(self, current: Current) -> None:
        self._current = current
        self._state = current.state
        self._q = current.state.q
        self._frames = current.frames
        memory = current.frames.memory
        self._view = memory.view
        self._find_leaf = {width: leaf_finder(memory, PAGING_MODE[width]) for width in Width}
        self._decoded: dict[tuple[int, int], tuple[bytes, MemoryWrite | None]] = {}

    def store(self, vaddr: int, error_code: int) -> bool:
        """Do the store that faulted at `vaddr`; False if it is none to a page table of the guest's,
        or not to be done."""
        current = self._current
        if error_code & _FAULT_BITS != _WRITE_TO_PRESENT:
            return False
        if not current.dom.vm_assist & VMASST_WRITABLE_PAGETABLES or not current.in_kernel:
            return False
        table = self._table_behind(vaddr, current.dom)
        if table is None:
            return False
        flags = self._state.segment_flags(CS)
        bits = 64 if flags & _CODE_L else 32 if flags & _CODE_D else 16
        instruction = self._instruction(bits)
        return instruction is not None and self._emulate(instruction, bits, vaddr, table)

    def _table_behind(self, vaddr: int, dom: Domain) -> int | None:
        """The frame of the domain's leaf table that `vaddr` is a read-only mapping of."""
        leaf = self._find_leaf[dom.width](self._q[CR3], vaddr)
        if leaf is None:
            return None
        entry = dom.page_tables.read_entry(leaf)
        mfn = (entry & PTE_FRAME) >> PAGE_SHIFT
        frames = self._frames
        if entry & (PTE_P | PTE_RW) != PTE_P or mfn >= frames.nr_frames:
            return None
        is_table = frames.type[mfn] == _L1 and frames.type_count[mfn]
        return mfn if is_table and frames.owner[mfn] == dom.domid else None

    # --- the instruction ---------------------------------------------------------------------
    def _instruction(self, bits: int) -> MemoryWrite | None:
        """What RIP points to; None if it is nothing that is emulated."""
        vaddr = self._q[RIP]
        if bits != 64:
            vaddr = vaddr + self._state.segment_base(CS) & _M32
        known = self._decoded.get((vaddr, bits))
        if known is not None and self._is_still(vaddr, known[0]):
            return known[1]
        code = self._fetch(vaddr)
        found = decode(code, bits)
        if len(self._decoded) >= _CACHED:
            self._decoded.clear()
        if found is not None:
            code = code[: found.length]
        self._decoded[vaddr, bits] = code, found
        return found

    def _is_still(self, vaddr: int, code: bytes) -> bool:
        try:
            return self._current.mem.read_raw(vaddr, len(code)) == code
        except GuestFault:
            return False

    def _fetch(self, vaddr: int) -> bytes:
        """Up to 15 bytes; fewer where a page cannot be read."""
        mem = self._current.mem
        to_page_end = min(MAX_INSTRUCTION, PAGE_MASK + 1 - (vaddr & PAGE_MASK))
        code = b""
        try:
            code = mem.read_raw(vaddr, to_page_end)
            code += mem.read_raw(vaddr + to_page_end, MAX_INSTRUCTION - to_page_end)
        except GuestFault:
            pass
        return code

    # --- doing it ----------------------------------------------------------------------------
    def _emulate(self, instruction: MemoryWrite, bits: int, fault_vaddr: int, mfn: int) -> bool:
        q = self._q
        next_rip = q[RIP] + instruction.length & (_M64 if bits == 64 else _M32)
        vaddr = self._linear(instruction.address, instruction.offset(q, next_rip), bits)
        if (vaddr ^ fault_vaddr) & ~PAGE_MASK or vaddr & instruction.size - 1:
            return False  # Xen does naturally aligned stores within the page that faulted
        maddr = mfn << PAGE_SHIFT | vaddr & PAGE_MASK
        if not instruction.reads:
            is_done = self._write(instruction, maddr, instruction.value(q))
        else:
            try:
                source = self._source(instruction, next_rip, bits)
            except GuestFault:
                return False
            is_done = self._modify(instruction, maddr, source)
        if is_done and instruction.is_over(q):
            q[RIP] = next_rip
        return is_done

    def _linear(self, address: Address, offset: int, bits: int) -> int:
        if bits != 64:
            return offset + self._state.segment_base(address.segment) & _M32
        if address.segment >= FS:
            return offset + self._state.segment_base(address.segment) & _M64
        return offset

    def _source(self, instruction: MemoryWrite, next_rip: int, bits: int) -> int | None:
        """What movs or push takes from memory: read as the guest's kernel reads."""
        address = instruction.source_address
        if address is None:
            return None
        vaddr = self._linear(address, address.offset(self._q, next_rip), bits)
        return int.from_bytes(self._current.mem.read_raw(vaddr, instruction.size), "little")

    def _modify(self, instruction: MemoryWrite, maddr: int, source: int | None) -> bool:
        """Write what comes of the old value; then registers and flags are as that leaves them."""
        state = self._state
        old = int.from_bytes(self._view[maddr : maddr + instruction.size], "little")
        rflags = state.rflags
        change = instruction.change(old, rflags, self._q, source)
        is_written = change.new is not None and change.new != old
        if is_written and not self._write(instruction, maddr, change.new or 0):
            return False
        for part, value in change.registers:
            state.set_gpr(part.number, part.into(state.gpr(part.number), value))
        if change.flags is not None:
            rflags = rflags & ~ARITHMETIC_FLAGS | change.flags & ARITHMETIC_FLAGS
        state.rflags = rflags & ~EFLAGS_RF
        return True

    def _write(self, instruction: MemoryWrite, maddr: int, value: int) -> bool:
        """Validate and store a whole entry, of which `value` is at least a part."""
        tables = self._current.dom.page_tables
        size, entry_bytes = instruction.size, tables.mode.entry_bytes
        if size > entry_bytes:
            return False
        entry_maddr = maddr & -entry_bytes
        if size < entry_bytes:
            shift = 8 * (maddr - entry_maddr)
            mask = (1 << 8 * size) - 1 << shift
            value = tables.read_entry(entry_maddr) & ~mask | value << shift & mask
        try:
            tables.write_entry(entry_maddr, value)
        except XenError:
            if not self._is_upper_half_first(instruction, maddr, value):
                return False
            tables.write_entry(entry_maddr, value & ~PTE_P)
        self._current.vcpu.stats.table_writes += 1
        return True

    def _is_upper_half_first(self, instruction: MemoryWrite, maddr: int, value: int) -> bool:
        is_upper_half = instruction.size == 4 and bool(maddr & 4) and not instruction.is_locked
        return is_upper_half and self._current.dom.width is Width.X86_32P and bool(value & PTE_P)
