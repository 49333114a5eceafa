"""A guest's page tables by hypercall, for tests: updates, operations, frames that nothing uses."""

from __future__ import annotations

from hypervisor.abi.layout import layout
from hypervisor.abi.types import DOMID_SELF
from hypervisor.abi.xen import HypercallNr, MmuextOp, MmuUpdate
from hypervisor.mm.walk import walk
from tests.support.callers import BASE, Guest

DONE = 1024  # offset in the data page, of the done count
PAGE = 4096


def spare(guest: Guest, count: int = 1) -> list[int]:
    """The last frames of the domain, mapped no more."""
    p2m = guest.dom.p2m
    for pfn in range(len(p2m) - count, len(p2m)):
        guest.call(HypercallNr.UPDATE_VA_MAPPING, page(guest, pfn), 0, 0, 0)
    return p2m[-count:]


def page(guest: Guest, pfn: int) -> int:
    """Where the kernel's image maps a pfn."""
    return BASE[guest.width] + pfn * PAGE


def update(guest: Guest, *requests: tuple[int, int], foreign: int = DOMID_SELF) -> int | None:
    """mmu_update with (ptr, val) pairs. Raises XenError."""
    shape = layout(MmuUpdate, guest.width)
    vaddr = guest.put(b"".join(shape.pack(MmuUpdate(*request)) for request in requests))
    return guest.call(HypercallNr.MMU_UPDATE, vaddr, len(requests), guest.data + DONE, foreign)


def operate(guest: Guest, *ops: MmuextOp, foreign: int = DOMID_SELF) -> int | None:
    """mmuext_op. Raises XenError."""
    shape = layout(MmuextOp, guest.width)
    vaddr = guest.put(b"".join(shape.pack(op) for op in ops))
    return guest.call(HypercallNr.MMUEXT_OP, vaddr, len(ops), guest.data + DONE, foreign)


def done(guest: Guest) -> int:
    """What the latest batch reported."""
    return int.from_bytes(guest.get(4, DONE), "little")


def leaf(guest: Guest, vaddr: int) -> tuple[int, int]:
    """The machine address of the leaf entry of `vaddr`, and the entry."""
    mode = guest.dom.page_tables.mode
    cr3 = guest.enter().current.state.cr3
    step = walk(guest.host.memory, mode, cr3, vaddr).steps[-1]
    assert step.level == 1
    return step.entry_maddr, step.entry


def map_at(
    guest: Guest, vaddr: int, entry: int, flags: int = 0, foreign: int | None = None
) -> int | None:
    """update_va_mapping, or with `foreign` update_va_mapping_otherdomain. Raises XenError."""
    args = [entry] if guest.width.is_64 else [entry & 0xFFFF_FFFF, entry >> 32]
    if foreign is None:
        return guest.call(
            HypercallNr.UPDATE_VA_MAPPING, vaddr, *args, flags, *[0] * (2 - len(args))
        )
    rest = [foreign] if not guest.width.is_64 else [foreign, 0]
    return guest.call(HypercallNr.UPDATE_VA_MAPPING_OTHERDOMAIN, vaddr, *args, flags, *rest)
