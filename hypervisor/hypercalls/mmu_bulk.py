"""A long mmu_update at once: the requests of one stretch as arrays (see mm.bulk).

What is done at once is plain updates of leaves. Requests are read beforehand, not one by one as
they are come to; so a batch that changes itself, in the tables that hold it or that map it, is left
to the loop.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from hypervisor.abi.xen import MmuCommand
from hypervisor.hypercalls.caller import Caller
from hypervisor.mm.bulk import Bulk, Words
from hypervisor.x86.paging import PAGE_SHIFT, PAGE_SIZE, PTE_A, PTE_D

_PLAIN: Final = [int(MmuCommand.NORMAL_PT_UPDATE), int(MmuCommand.PT_UPDATE_NO_TRANSLATE)]
_PRESERVE_AD: Final = int(MmuCommand.PT_UPDATE_PRESERVE_AD)
_ACCESSED_DIRTY: Final = np.uint64(PTE_A | PTE_D)
_NOTHING: Final = np.uint64(0)
_M32: Final = np.uint64(0xFFFF_FFFF)


def update(caller: Caller, bulk: Bulk, owner: int, vaddr: int, raw: bytes) -> int:
    """Do the requests `raw`, read at `vaddr`, as far as that goes at once; how many were done."""
    requests = np.frombuffer(raw, dtype=np.uint64).reshape(-1, 2)
    size = caller.dom.page_tables.mode.entry_bytes
    commands = requests[:, 0] & np.uint64(size - 1)
    maddrs = requests[:, 0] - commands
    values = requests[:, 1] & _M32 if size == 4 else requests[:, 1]
    keeps = commands == _PRESERVE_AD
    is_update = keeps | np.isin(commands, _PLAIN)
    count = len(is_update) if is_update.all() else int(np.argmin(is_update))
    if count == 0 or _changes_itself(caller, maddrs[:count], vaddr, len(raw)):
        return 0
    keep = np.where(keeps, _ACCESSED_DIRTY, _NOTHING)
    return bulk.update(maddrs[:count], values[:count], keep[:count], owner)


def _changes_itself(caller: Caller, maddrs: Words, vaddr: int, size: int) -> bool:
    """Whether an update is to a frame that holds the requests, or to an entry that maps them."""
    mfns = maddrs >> np.uint64(PAGE_SHIFT)
    for page in range(vaddr & -PAGE_SIZE, vaddr + size, PAGE_SIZE):
        leaf = caller.mem.leaf_maddr(page)
        frame = caller.mem.translate(page, write=False) >> PAGE_SHIFT
        if leaf is None or (maddrs == leaf).any() or (mfns == frame).any():
            return True
    return False
