"""Array operations against the loop: the same batch on two equal machines, one way on each.

What is compared is everything: tables, types, counts, stamps, flush epochs, the free list, how many
updates were done and what the first refusal said. Batches have duplicates, frames that change type
on the way, frames that are freed on the way, and entries that are refused in the middle.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.abi.errors import XenError
from hypervisor.abi.width import Width
from hypervisor.mm.bulk import Bulk
from hypervisor.mm.frames import FrameType
from hypervisor.x86.paging import PTE_A, PTE_D, PTE_G, PTE_P, PTE_PCD, PTE_RW, PTE_US
from tests.support.small_machine import STRANGER, SmallMachine

NR_TABLES = 2
FLAGS = (0, PTE_P, PTE_P | PTE_RW, PTE_P | PTE_RW | PTE_US | PTE_A, PTE_P | PTE_US | PTE_G)
TARGETS = 12

Update = tuple[int, int, int, int, int]  # table, slot, target, flags, keep

#: Most may be named as they like, two are freed when nothing names them, five are refused.
CHOICE = (*[2, 3, 4, 5, 6] * 12, 0, 1, 0, 1, 7, *range(7, TARGETS))

updates = st.lists(
    st.tuples(
        st.integers(0, NR_TABLES - 1),
        st.integers(0, 3),
        st.sampled_from(CHOICE),
        st.sampled_from((*FLAGS * 12, PTE_P | PTE_PCD)),
        st.sampled_from((0, 0, PTE_A | PTE_D)),
    ),
    max_size=40,
)


class Pair(SmallMachine):
    """Two leaf tables, and frames of every kind to name in them."""

    def __init__(self, width: Width, before: list[Update]) -> None:
        super().__init__(width)
        self.leaf_tables = self.own[:NR_TABLES]
        for table in self.leaf_tables:
            self.tables.pin(table, FrameType.L1)
        descriptors, lent, *plain = self.own[NR_TABLES:]
        self.frames.lend(lent)
        self.tables.get_page_and_type(descriptors, FrameType.SEGDESC)
        self.targets = [*plain[:7], lent, descriptors, self.foreign, self.xen, 0x3333]
        assert len(self.targets) == TARGETS
        self.flushes = 0
        self.frames.flush_needed = self._flush
        for update in before:
            self.one_by_one([update])
        for mfn in plain[:2]:  # freed when its last mapping goes
            self.frames.release_allocation(mfn)

    def _flush(self) -> None:
        self.flushes += 1
        self.frames.flushed()

    def arguments(self, update: Update) -> tuple[int, int, int]:
        table, slot, target, flags, keep = update
        return self.maddr(self.leaf_tables[table], slot), self.targets[target] << 12 | flags, keep

    def one_by_one(self, batch: list[Update], owner: int = 1) -> tuple[int, Any]:
        for done, update in enumerate(batch):
            maddr, entry, keep = self.arguments(update)
            try:
                self.tables.update_leaf(maddr, entry, owner, keep)
            except XenError as refusal:
                return done, (refusal.errno, refusal.why)
        return len(batch), None

    def at_once(self, batch: list[Update], owner: int = 1) -> tuple[int, Any]:
        """As mmu_update does it: at once as far as that goes, then one by one, and again."""
        bulk = Bulk(self.tables)
        done = 0
        while done < len(batch):
            arrays = np.array([self.arguments(update) for update in batch[done:]], dtype=np.uint64)
            done += bulk.update(arrays[:, 0], arrays[:, 1], arrays[:, 2], owner)
            if done < len(batch):
                one, refusal = self.one_by_one(batch[done : done + 1], owner)
                if refusal:
                    return done, refusal
                done += one
        return done, None

    def everything(self) -> tuple[Any, ...]:
        frames = self.frames
        columns = (frames.owner, frames.type_count, frames.ref_count, frames.stamp)
        return (
            bytes(self.memory.view),
            *(column.tolist() for column in columns),
            bytes(frames.type),
            bytes(frames.flags),
            frames.free_list(),
            frames.epoch,
            self.flushes,
        )


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
@pytest.mark.parametrize("owner", [1, STRANGER], ids=["own", "foreign"])
@settings(max_examples=120, deadline=None, derandomize=True)
@given(before=updates, batch=updates)
def test_a_batch_at_once_is_the_batch_one_by_one(
    width: Width, owner: int, before: list[Update], batch: list[Update]
) -> None:
    one, other = Pair(width, before), Pair(width, before)
    assert one.at_once(batch, owner) == other.one_by_one(batch, owner)
    assert one.everything() == other.everything()


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
def test_long_batches_over_few_entries(width: Width) -> None:
    """Each entry changes many times in a batch: more of it than the search above finds."""
    random = Random(width.name)
    for _ in range(60):
        before, batch = (
            [
                (
                    random.randrange(NR_TABLES),
                    random.randrange(3),
                    random.randrange(6),
                    random.choice(FLAGS),
                    random.choice((0, PTE_A | PTE_D)),
                )
                for _ in range(length)
            ]
            for length in (8, 30)
        )
        one, other = Pair(width, before), Pair(width, before)
        assert one.at_once(batch) == other.one_by_one(batch)
        assert one.everything() == other.everything()


@pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(before=updates, content=updates)
def test_a_table_at_once_is_the_table_one_by_one(
    width: Width, before: list[Update], content: list[Update]
) -> None:
    """Validated, and given back again; None: refused or left to the loop."""
    machines = Pair(width, before), Pair(width, before)
    for machine in machines:
        table = machine.leaf_tables[0]
        machine.tables.unpin(table)
        for update in content:
            _, slot, target, flags, _ = update
            machine.write(table, slot + target * 8, machine.targets[target] << 12 | flags)
    one, other = machines
    bulk = Bulk(one.tables)
    one.tables.bulk = lambda count: bulk  # type: ignore[method-assign]
    for operation in ("pin", "unpin"):
        outcomes = [_attempt(machine, operation) for machine in machines]
        assert outcomes[0] == outcomes[1]
        assert one.everything() == other.everything()


def _attempt(machine: Pair, operation: str) -> Any:
    table = machine.leaf_tables[0]
    try:
        if operation == "pin":
            machine.tables.pin(table, FrameType.L1)
        else:
            machine.tables.unpin(table)
    except XenError as refusal:
        return refusal.errno, refusal.why
    return None
