"""Page tables read whole, as numpy columns: for those who look at all of them at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hypervisor.mm.entries import LEVEL_OF
from hypervisor.mm.frames import FrameType
from hypervisor.mm.pagetables import PageTables
from hypervisor.x86.paging import PTE_P

Column = npt.NDArray[Any]


def words_of(tables: PageTables, mfn: int) -> Column:
    """All entries of a table, each as 64 bits."""
    size = tables.mode.entry_bytes
    raw = tables.frames.memory.frame(mfn)
    return np.frombuffer(raw, dtype=np.uint32 if size == 4 else np.uint64).astype(np.uint64)


def present_columns(tables: PageTables, mfn: int, kind: FrameType) -> tuple[Column, Column]:
    """The guest's slots of a table that are present, and their entries."""
    words = words_of(tables, mfn)[: tables.mode.slots[LEVEL_OF[kind]]]
    is_present = words & PTE_P != 0
    xen = tables.xen_slots
    if kind == xen.table:
        is_present[xen.first : xen.end] = False
    slots = np.flatnonzero(is_present)
    return slots, words[slots]
