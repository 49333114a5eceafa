"""Work on trees of tables that stops half way, between tables, and goes on."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.mm.audit import AuditSubject
from hypervisor.mm.frames import PINNED, FrameType
from hypervisor.mm.pagetables import UNLIMITED, OutOfBudget
from tests.support.small_machine import P, SmallMachine, refused


def wide_tree(small: SmallMachine) -> tuple[int, list[int]]:
    """An L2 over eight leaf tables."""
    l2, *leaves = small.own[:9]
    for slot, leaf in enumerate(leaves):
        small.write(l2, slot, leaf << 12 | P)
        small.write(leaf, 0, small.own[10] << 12 | P)
    return l2, leaves


def piece(small: SmallMachine) -> int:
    """Entries of the upper table and of two leaf tables."""
    return 3 * 4096 // small.entry_bytes


def subject(small: SmallMachine) -> AuditSubject:
    waiting = [*small.tables.doomed, *small.tables.kept.get(0, [])]
    return AuditSubject(small.tables, [(mfn, FrameType(small.frames.type[mfn])) for mfn in waiting])


def pin_a_piece(small: SmallMachine, l2: int) -> bool:
    """As a hypercall does it: first what is doomed, then another try."""
    assert small.tables.reap()
    small.tables.budget = piece(small)
    try:
        small.tables.retryable(0, small.tables.pin, l2, FrameType.L2)
    except OutOfBudget:
        return False
    finally:
        small.tables.budget = UNLIMITED
    return True


def test_a_pin_goes_on_where_it_stopped(small: SmallMachine) -> None:
    l2, leaves = wide_tree(small)
    validated = []
    while not pin_a_piece(small, l2):
        assert small.counts(l2) == (FrameType.NONE, 0, 1)
        small.audit(subject(small))
        validated.append(len(small.tables.kept[0]))
    assert validated == [2, 4, 6]
    assert small.frames.flags[l2] & PINNED
    assert small.tables.reap()
    assert small.tables.kept == {}
    assert all(small.counts(leaf)[:2] == (FrameType.L1, 1) for leaf in leaves)
    small.audit()


def test_a_refusal_in_a_later_piece_lets_the_earlier_ones_go(small: SmallMachine) -> None:
    l2, leaves = wide_tree(small)
    small.write(leaves[-1], 0, small.foreign << 12 | P)
    with refused(Errno.EBUSY, r"is d2's"):
        while not pin_a_piece(small, l2):
            pass
    assert small.tables.reap()
    assert all(small.counts(mfn)[1:] == (0, 1) for mfn in (l2, *leaves))
    small.audit()


def test_what_was_kept_does_not_outlive_a_change_of_mind(small: SmallMachine) -> None:
    l2, leaves = wide_tree(small)
    pin_a_piece(small, l2)
    small.tables.retryable(0, small.tables.pin, leaves[-1], FrameType.L1)
    assert small.counts(leaves[0])[1] == 0
    small.audit()


def test_two_vcpus_do_not_lose_each_others_progress(small: SmallMachine) -> None:
    l2, _ = wide_tree(small)
    pin_a_piece(small, l2)
    small.tables.budget = piece(small)
    with pytest.raises(OutOfBudget):
        small.tables.retryable(1, small.tables.pin, l2, FrameType.L2)
    assert {who: len(kept) for who, kept in small.tables.kept.items()} == {0: 2, 1: 4}


def test_giving_back_leaves_a_list(small: SmallMachine) -> None:
    l2, leaves = wide_tree(small)
    small.tables.pin(l2, FrameType.L2)
    small.tables.budget = piece(small)
    small.tables.unpin(l2)
    assert small.counts(l2) == (FrameType.L2, 0, 1)
    assert len(small.tables.doomed) == 6
    small.audit(subject(small))
    small.tables.budget = 4096 // small.entry_bytes
    assert not small.tables.reap()
    small.tables.budget = UNLIMITED
    assert small.tables.reap()
    assert all(small.counts(leaf)[1:] == (0, 1) for leaf in leaves)
    small.audit()


def test_a_domain_that_ends_leaves_nothing_waiting(small: SmallMachine) -> None:
    l2, leaves = wide_tree(small)
    pin_a_piece(small, l2)
    small.tables.abandon()
    assert small.tables.kept == {}
    assert all(small.counts(leaf)[1:] == (0, 1) for leaf in leaves)
    small.audit()
