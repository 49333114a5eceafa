"""Reading and writing a guest's memory at the guest's own linear addresses.

Every pointer that a guest passes goes through here: it must not lie in Xen's region, it is resolved
by the tables that the guest is running on, and a write needs a writable mapping just as the guest's
own would (Xen runs with CR0.WP set). What is refused is -EFAULT (access_ok and copy_from_guest in
Xen's arch/x86/include/asm/x86_64/uaccess.h).
"""

from __future__ import annotations

from collections.abc import Callable

from hypervisor.abi.arch_x86_64 import HYPERVISOR_VIRT_END
from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.machine.memory import MachineMemory
from hypervisor.mm.entries import PAGING_MODE
from hypervisor.mm.hole_map import HOLE
from hypervisor.mm.walk import leaf_finder, page_chunks, quick_walk, walk
from hypervisor.x86.paging import PAGE_MASK, PTE_A, PTE_D, PTE_RW


class GuestFault(Exception):
    """A guest address could not be accessed: where, and if for a missing entry or its rights."""

    def __init__(self, vaddr: int, *, write: bool, present: bool) -> None:
        super().__init__(vaddr)
        self.vaddr = vaddr
        self.write = write
        self.present = present

    def __str__(self) -> str:
        verb = "write" if self.write else "read"
        rule = "is not writable" if self.present else "is not mapped"
        return f"cannot {verb} at {self.vaddr:#x}: it {rule}"


class GuestMemory:
    """Access to whatever address space the CPU is in, for guests of one width."""

    def __init__(
        self,
        memory: MachineMemory,
        width: Width,
        cr3: Callable[[], int],
        written: Callable[[int, int], None],
    ) -> None:
        self._memory = memory
        self._mode = PAGING_MODE[width]
        self._cr3 = cr3
        self._written = written  # tells the CPU that translated code may have changed
        self._limit = HOLE[width].vaddr
        self._is_64 = width.is_64
        self._quick = quick_walk(memory, self._mode)
        self.find_leaf = leaf_finder(memory, self._mode)

    def is_guest_range(self, vaddr: int, size: int) -> bool:
        """Whether [vaddr, vaddr + size) touches nothing of Xen's."""
        if not self._is_64:
            return vaddr + size <= self._limit
        end = vaddr + size
        return end <= 1 << 47 or (vaddr >= HYPERVISOR_VIRT_END and end <= 1 << 64)

    def is_guest_handle(self, vaddr: int, size: int) -> bool:
        """Whether a hypercall looks at all at an array of `size` bytes at `vaddr`.

        For 64-bit guests Xen tests where it begins only (__addr_ok): whatever reaches the region
        or the gap faults when it is come to.
        """
        if not self._is_64:
            return vaddr + size <= self._limit
        return vaddr < 1 << 47 or vaddr >= HYPERVISOR_VIRT_END

    def translate(self, vaddr: int, *, write: bool) -> int:
        """The machine address behind `vaddr`, accessed and dirty bits set as the MMU would.

        Raises GuestFault if the guest's tables do not allow it.
        """
        maddr = self._quick(self._cr3(), vaddr, write)
        return self._translate(vaddr, write=write) if maddr is None else maddr

    def _translate(self, vaddr: int, *, write: bool) -> int:
        found = walk(self._memory, self._mode, self._cr3(), vaddr)
        if found.maddr is None:
            raise GuestFault(vaddr, write=write, present=False)
        if write and not found.flags & PTE_RW:
            raise GuestFault(vaddr, write=True, present=True)
        leaf = found.steps[-1]
        wanted = PTE_A | PTE_D if write else PTE_A
        if leaf.entry & wanted != wanted:
            words = self._memory.u32 if self._mode.entry_bytes == 4 else self._memory.u64
            words[leaf.entry_maddr >> self._mode.entry_shift] = leaf.entry | wanted
        return found.maddr

    def leaf_maddr(self, vaddr: int) -> int | None:
        """Where the entry lies that maps `vaddr`, whatever it says; None where there is none."""
        return self.find_leaf(self._cr3(), vaddr)

    def read(self, vaddr: int, size: int) -> bytes:
        """`size` bytes at `vaddr`. Raises XenError(EFAULT)."""
        try:
            return self.read_raw(vaddr, size)
        except GuestFault as fault:
            raise XenError(Errno.EFAULT, str(fault)) from None

    def write(self, vaddr: int, data: bytes) -> None:
        """Put `data` at `vaddr`, all or nothing. Raises XenError(EFAULT)."""
        try:
            self.write_raw(vaddr, data)
        except GuestFault as fault:
            raise XenError(Errno.EFAULT, str(fault)) from None

    def read_raw(self, vaddr: int, size: int) -> bytes:
        """As `read`, but raises GuestFault: for emulation, whose faults the guest handles."""
        self._check(vaddr, size, write=False)
        view = self._memory.view
        if (vaddr & PAGE_MASK) + size <= PAGE_MASK + 1:
            maddr = self.translate(vaddr, write=False)
            return bytes(view[maddr : maddr + size])
        parts = [(self.translate(at, write=False), n) for at, n in page_chunks(vaddr, size)]
        return b"".join(bytes(view[maddr : maddr + n]) for maddr, n in parts)

    def write_raw(self, vaddr: int, data: bytes) -> None:
        """As `write`, but raises GuestFault; nothing is written when any page refuses."""
        size = len(data)
        self._check(vaddr, size, write=True)
        view = self._memory.view
        if (vaddr & PAGE_MASK) + size <= PAGE_MASK + 1:
            maddr = self.translate(vaddr, write=True)
            view[maddr : maddr + size] = data
            self._written(maddr, size)
            return
        parts = [(self.translate(at, write=True), n) for at, n in page_chunks(vaddr, size)]
        done = 0
        for maddr, n in parts:
            view[maddr : maddr + n] = data[done : done + n]
            self._written(maddr, n)
            done += n

    def _check(self, vaddr: int, size: int, *, write: bool) -> None:
        if not self.is_guest_range(vaddr, size):
            raise GuestFault(vaddr, write=write, present=False)
