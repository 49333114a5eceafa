"""A hypervisor without one of its checks, to see that an attack is real and what stops it.

Production code has no switch for this: a check is replaced from outside, by its dotted name, with
something that lets everything pass and is otherwise the same. Each name here stands in the opening
comment of an attack in `guests/attacks/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Final
from unittest import mock

import numpy as np

from hypervisor.abi.xen import MulticallEntry
from hypervisor.domain.domain import Domain
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.memory_exchange import _word
from hypervisor.mm import hole
from hypervisor.mm.bulk import Bulk, Words
from hypervisor.mm.frames import ALLOCATED, FrameTable
from hypervisor.mm.guest_memory import GuestFault, GuestMemory
from hypervisor.mm.pagetables import PageTables
from hypervisor.mm.walk import walk
from hypervisor.x86.paging import PTE_RW


@contextmanager
def without(*checks: str) -> Iterator[None]:
    """While this lasts, these checks let everything pass."""
    with ExitStack() as stack:
        for check in checks:
            stack.enter_context(mock.patch.object(*found(check), WEAKENED[check]))
        yield


def found(check: str) -> tuple[Any, str]:
    """The module or class that a dotted name leads to, and the name in it.

    Raises LookupError if there is no such thing: the check has been renamed.
    """
    *path, name = check.split(".")
    for length in range(len(path), 0, -1):
        try:
            holder: Any = import_module(".".join(path[:length]))
        except ModuleNotFoundError:
            continue
        for part in path[length:]:
            holder = getattr(holder, part, None)
        if not hasattr(holder, name):
            break
        return holder, name
    raise LookupError(f"there is no {check}")


def _passes(*_: object, **__: object) -> None:
    """Refuses nothing."""


def _get_page_of_anybody(self: FrameTable, mfn: int, owner: int) -> None:
    self.ref_count[mfn] += 1


def _linear_if_writable(self: PageTables, level: int, table: int, named: int, entry: int) -> bool:
    return _GET_LINEAR(self, level, table, named, entry & ~PTE_RW)


_GET_LINEAR: Final = PageTables._get_linear


def _translate_without_rights(self: GuestMemory, vaddr: int, *, write: bool) -> int:
    found = walk(self._memory, self._mode, self._cr3(), vaddr)
    if found.maddr is None:
        raise GuestFault(vaddr, write=write, present=False)
    return found.maddr


def _give_without_flush(self: FrameTable, mfns: Any, owner: int) -> None:
    self._held[owner] += len(mfns)
    for mfn in mfns:
        self.owner[mfn] = owner
        self.ref_count[mfn] = 1
        self.flags[mfn] = ALLOCATED


def _free_without_forgetting_code(self: FrameTable, mfn: int) -> None:
    with mock.patch.object(self, "scrubbed", _passes):
        _FREE_FRAME(self, mfn)


_FREE_FRAME: Final = FrameTable._free_frame


def _free_whoever_names_it(self: FrameTable, mfn: int) -> None:
    self.type_count[mfn] = 0
    self.ref_count[mfn] = 1  # the caller's, who puts it next


def _none_is_refused(self: Bulk, entries: Words, targets: Words, owner: object = None) -> Words:
    return np.zeros(len(entries), dtype=bool)


def _old_of_before_all(self: Bulk, idx: Words, stored: Words, keep: Words) -> tuple[Words, Words]:
    return self._words[idx].astype(np.uint64), np.arange(len(idx))


def _steal_from_anybody(caller: Any, dom: Domain, given: Any, chunk: int, order: int) -> list[int]:
    return [_word(caller, given.extent_start, chunk)]


def _call_whatever_it_is(caller: Caller, entry: MulticallEntry) -> int | None:
    return caller.host.call_by_number(entry.op, tuple(entry.args))


def _writable_leaves(mode: Any) -> int:
    return _LEAF_FLAGS(mode) | PTE_RW


_LEAF_FLAGS: Final = hole._leaf_flags


def _any_descriptor(width: object, desc: int) -> int:
    return desc


def _any_gate(width: object, desc: int, dpl: int) -> int:
    return desc


WEAKENED: Final[dict[str, Any]] = {
    "hypervisor.mm.leaf_tables.LeafTables._refuse_frame": _passes,
    "hypervisor.mm.leaf_tables.LeafTables._refuse_bits": _passes,
    "hypervisor.mm.page_types.PageTypes._refuse_type": _passes,
    "hypervisor.mm.pagetables.PageTables._refuse_private_slot": _passes,
    "hypervisor.mm.pagetables.PageTables._get_linear": _linear_if_writable,
    "hypervisor.mm.bulk.Bulk._is_refused": _none_is_refused,
    "hypervisor.mm.bulk.Bulk._old": _old_of_before_all,
    "hypervisor.mm.linear.LinearUses.add": _passes,
    "hypervisor.mm.frames.FrameTable.get_page": _get_page_of_anybody,
    "hypervisor.mm.frames.FrameTable.settle": _passes,
    "hypervisor.mm.frames.FrameTable._give": _give_without_flush,
    "hypervisor.mm.frames.FrameTable._free_frame": _free_without_forgetting_code,
    "hypervisor.mm.frames.FrameTable.release_allocation": _free_whoever_names_it,
    "hypervisor.mm.guest_memory.GuestMemory._check": _passes,
    "hypervisor.mm.guest_memory.GuestMemory._translate": _translate_without_rights,
    "hypervisor.mm.hole._leaf_flags": _writable_leaves,
    "hypervisor.mm.descriptors.checked_descriptor": _any_descriptor,
    "hypervisor.mm.descriptors._checked_gate": _any_gate,
    "hypervisor.hypercalls.descriptors.checked_descriptor": _any_descriptor,
    "hypervisor.hypercalls.caller.Caller.require_target": _passes,
    "hypervisor.hypercalls.memory._check_limit": _passes,
    "hypervisor.hypercalls.memory_exchange._stealable": _steal_from_anybody,
    "hypervisor.hypercalls.mmu_batch.REQUESTS_PER_PIECE": 1 << 31,
    "hypervisor.hypercalls.multicall._call": _call_whatever_it_is,
    "hypervisor.hypercalls.sched._require_privilege": _passes,
    "hypervisor.hypercalls.callbacks._fixed_selector": lambda caller, selector: selector,
    "hypervisor.events.channels.EventChannels._is_open_to": lambda *_: True,
    "hypervisor.events.channels.nr_ports": lambda _: 1 << 17,
    "hypervisor.grants.table.MAX_FRAMES": 1 << 20,
    "hypervisor.traps.bounce._out_of_vm86": lambda current: current.state.rflags,
    "hypervisor.traps.iret._refuse_ring_0": _passes,
    "hypervisor.traps.entry.TrapEntry.before_user_mode": _passes,
    "hypervisor.traps.ports.may_use": lambda *_: True,
    "hypervisor.traps.msr.write": lambda *_: True,
}
