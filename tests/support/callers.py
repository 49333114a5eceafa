"""Domains that make hypercalls from Python: whole and real, but their kernels run one `nop`.

`Guest.call` goes where the dispatcher goes, so refusals arrive as XenError with their reasons. What
a hypercall reads and writes in the guest's memory stands at `DATA`, which the kernel's image maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.width import Width
from hypervisor.api import Machine
from hypervisor.control.host import Host
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import HYPERCALLS
from hypervisor.mm.hole_map import HOLE
from hypervisor.mm.walk import walk
from hypervisor.x86.paging import PAGE_SHIFT, PAGE_SIZE, PTE_P
from tests.support.elf_writer import KernelSpec, LoadSegment, generic_notes, write_elf

BASE: Final = {
    Width.X86_32: 0xC000_0000,
    Width.X86_32P: 0xC000_0000,
    Width.X86_64: 0xFFFF_FFFF_8000_0000,
}
_PAE: Final = {Width.X86_32: "no", Width.X86_32P: "yes", Width.X86_64: None}
_IMAGE_BYTES: Final = 0x4000
_DATA_OFFSET: Final = 0x2000
_READ_ONLY_OFFSET: Final = 0x3000
#: An address that no page table of the guest maps.
UNMAPPED: Final = 0x1000


class Guest:
    """A domain, the calls it makes, and its memory."""

    def __init__(
        self, machine: Machine, width: Width, *, privileged: bool = False, nr_vcpus: int = 1
    ) -> None:
        handle = machine.create(
            nop_kernel(width),
            memory_mib=4,
            privileged=privileged,
            width=width,
            nr_vcpus=nr_vcpus,
        )
        self.machine = machine
        self.width = width
        self.host: Host = machine.vmm.host
        self.dom: Domain = self.host.domains[handle.domid]
        self.vcpu: Vcpu = self.dom.vcpus[0]
        self.data = BASE[width] + _DATA_OFFSET
        self._caller = Caller(self.host, self.host.current)

    def enter(self) -> Caller:
        """Put this domain on the CPU."""
        if self.host.running is not self.vcpu:
            self.machine.vmm._switch(self.dom, self.vcpu)
        return self._caller

    def call(self, number: int, *args: int) -> int | None:
        """A hypercall with its register arguments. Raises XenError."""
        return HYPERCALLS[number].handler(self.enter(), *args)

    def op(self, number: int, operation: int, argument: Any = None, *before: int) -> int | None:
        """A hypercall with an operation and a structure, which is filled again afterwards."""
        if argument is None:
            return self.call(number, operation, *before, 0)
        shape = layout(type(argument), self.width)
        self.put(shape.pack(argument))
        result = self.call(number, operation, *before, self.data)
        after = shape.unpack_from(self.get(shape.size))
        for name in shape.field_names:
            setattr(argument, name, getattr(after, name))
        return result

    def put(self, data: bytes, offset: int = 0) -> int:
        """Write into the guest's data page; returns the address."""
        self.enter().mem.write(self.data + offset, data)
        return self.data + offset

    def get(self, size: int, offset: int = 0) -> bytes:
        """Read from the guest's data page."""
        return self.enter().mem.read(self.data + offset, size)

    def read_only(self, data: bytes) -> int:
        """Put `data` where the guest may only read; returns the address."""
        caller = self.enter()
        vaddr = BASE[self.width] + _READ_ONLY_OFFSET
        caller.mem.write(vaddr, data)
        maddr = caller.mem.translate(vaddr, write=True)
        mode = self.dom.page_tables.mode
        entry = walk(self.host.memory, mode, caller.current.state.cr3, vaddr).steps[-1].entry_maddr
        self.dom.page_tables.update_entry(entry, maddr & ~0xFFF | PTE_P, owner=self.dom.domid)
        return vaddr

    def spare_frame(self) -> int:
        """A frame of ordinary memory that the guest maps: its data page's."""
        return self.enter().mem.translate(self.data, write=True) >> PAGE_SHIFT

    def end_of_memory(self) -> int:
        """The first address behind what the guest was given mapped."""
        caller = self.enter()
        vaddr = self.data
        mode = self.dom.page_tables.mode
        cr3 = caller.current.state.cr3
        while walk(self.host.memory, mode, cr3, vaddr).maddr is not None:
            vaddr += PAGE_SIZE
        return vaddr

    def mask_port(self, port: int) -> None:
        """Mask a port, as the guest does."""
        words = self.width.bits
        self.words[2048 + words * words // 8 + port // 8] |= 1 << port % 8

    @property
    def words(self) -> memoryview:
        """The guest's shared_info."""
        return self.host.memory.frame(self.dom.shared_info_mfn)


@contextmanager
def guests(*widths: Width, privileged: bool = False, nr_vcpus: int = 1) -> Iterator[list[Guest]]:
    """A machine with one domain for each width."""
    with Machine(memory_mib=8 + 8 * len(widths)) as machine:
        yield [Guest(machine, width, privileged=privileged, nr_vcpus=nr_vcpus) for width in widths]


def hole(width: Width) -> int:
    """Where Xen's region begins: mapped, but not for a guest to pass on."""
    return HOLE[width].vaddr


@contextmanager
def refused(errno: Errno, why: str) -> Iterator[None]:
    """What is done here is refused with `errno`, for a reason that matches `why`."""
    with pytest.raises(XenError, match=why) as refusal:
        yield
    assert refusal.value.errno is errno


def nop_kernel(width: Width) -> bytes:
    """An image of nops, all of it writable."""
    base = BASE[width]
    return write_elf(
        KernelSpec(
            bits=width.bits,
            entry=base,
            segments=[LoadSegment(0, b"\x90" * _IMAGE_BYTES, vaddr=base)],
            notes=generic_notes(_PAE[width], VIRT_BASE=base, ENTRY=base, PADDR_OFFSET=0),
        )
    )
