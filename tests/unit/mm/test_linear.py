"""Linear page tables: what may name a table of its own level, and what that holds."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.width import Width
from hypervisor.mm.frames import FrameType
from tests.support.small_machine import RW, P, SmallMachine, refused

ONLY_PAE = pytest.mark.parametrize("small", [Width.X86_32P], indirect=True, ids=["X86_32P"])
ONLY_LONG = pytest.mark.parametrize("small", [Width.X86_64], indirect=True, ids=["X86_64"])


def pinned_l2(small: SmallMachine, mfn: int) -> int:
    """An empty L2 table."""
    small.tables.pin(mfn, FrameType.L2)
    return mfn


def test_a_table_may_name_itself(small: SmallMachine) -> None:
    table = small.own[0]
    small.write(table, 0, table << 12 | P)
    small.tables.pin(table, FrameType.L2)
    assert small.counts(table) == (FrameType.L2, 1, 2)  # the pin alone
    small.audit()
    small.tables.unpin(table)
    assert small.counts(table)[1:] == (0, 1)


def test_a_table_may_not_name_itself_writable(small: SmallMachine) -> None:
    table = small.own[0]
    small.write(table, 0, table << 12 | RW)
    with refused(Errno.EINVAL, r"type L2 x1.*not usable as L1$"):
        small.tables.pin(table, FrameType.L2)
    assert small.counts(table) == (FrameType.NONE, 0, 1)


def test_a_linear_entry_does_not_become_writable(small: SmallMachine) -> None:
    table = pinned_l2(small, small.own[0])
    small.update(table, 0, table << 12 | P)
    with refused(Errno.EINVAL, r"type L2 x1.*not usable as L1$"):
        small.update(table, 0, table << 12 | RW)
    assert small.read(table, 0) & 3 == P


def test_another_table_of_the_level_is_held(small: SmallMachine) -> None:
    table, shown = pinned_l2(small, small.own[0]), pinned_l2(small, small.own[1])
    small.update(table, 0, shown << 12 | P)
    small.tables.unpin(shown)
    assert small.counts(shown) == (FrameType.L2, 1, 2)
    small.audit()
    small.update(table, 0, 0)
    assert small.counts(shown)[1:] == (0, 1)
    assert small.tables.linear.is_empty()


def test_it_has_to_be_a_table_already(small: SmallMachine) -> None:
    table, plain = pinned_l2(small, small.own[0]), small.own[1]
    small.write(plain, 0, plain << 12 | P | 1 << 3)  # not to be taken for an L1 either
    with refused(Errno.EINVAL, r"bits 0x8 are not allowed"):
        small.update(table, 0, plain << 12 | P)


def test_tables_do_not_hold_each_other_in_a_circle(small: SmallMachine) -> None:
    one, two, three = (pinned_l2(small, mfn) for mfn in small.own[:3])
    small.update(one, 0, two << 12 | P)
    with refused(Errno.EINVAL, rf"^mfn {two:#x} is itself used as a linear page table$"):
        small.update(two, 0, one << 12 | P)
    with refused(Errno.EINVAL, rf"^mfn {one:#x} has linear entries itself$"):
        small.update(three, 0, one << 12 | P)
    small.audit()


def test_a_strangers_table_is_not_shown(small: SmallMachine) -> None:
    table = pinned_l2(small, small.own[0])
    with refused(Errno.EINVAL, r"not d1's$"):
        small.update(table, 0, small.foreign << 12 | P)


@ONLY_PAE
def test_the_l2_with_xens_slots_shows_its_brothers(small: SmallMachine) -> None:
    """As NetBSD has it: one slot for each of the four L2 tables, its own among them."""
    chain = small.chain()
    xen_l2, other = chain[1], pinned_l2(small, small.own[8])
    small.update(xen_l2, 8, xen_l2 << 12 | P)
    small.update(xen_l2, 9, other << 12 | P)
    small.audit()
    small.tables.unpin(chain[0])
    small.audit()
    assert small.tables.linear.is_empty()


@ONLY_PAE
def test_a_pae_l3_is_never_linear(small: SmallMachine) -> None:
    chain = small.chain()
    with refused(Errno.EINVAL, r"type L3.*not usable as L2$"):
        small.update(chain[0], 0, chain[0] << 12 | P)


@ONLY_LONG
def test_every_level_of_four_may_be_linear(small: SmallMachine) -> None:
    l4, l3, l2, *_ = small.chain()
    for table in (l4, l3, l2):
        small.update(table, 7, table << 12 | P)
    small.audit()
    small.tables.unpin(l4)
    small.audit()
