"""The audit finds what it is there to find: each rule is broken behind the back of `mm`."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from hypervisor.abi.width import Width
from hypervisor.mm.audit import AuditError, AuditSubject
from hypervisor.mm.frames import OWNER_FREE, VALIDATED, FrameType
from hypervisor.mm.pagetables import PageTables
from tests.support.small_machine import OWNER, RW, P, SmallMachine


def leaf_table(small: SmallMachine) -> int:
    return small.own[small.root_level - 1]


def count_too_many(small: SmallMachine) -> None:
    small.frames.ref_count[small.own[-1]] += 1


def use_too_many(small: SmallMachine) -> None:
    small.frames.type_count[small.own[small.root_level]] += 1


def name_a_strangers_frame(small: SmallMachine) -> None:
    small.write(leaf_table(small), 1, small.foreign << 12 | P)


def name_xens_frame(small: SmallMachine) -> None:
    small.write(leaf_table(small), 1, small.xen << 12 | P)


def name_a_frame_beyond_memory(small: SmallMachine) -> None:
    small.write(leaf_table(small), 1, 0x3333 << 12 | P)


def map_a_table_writable(small: SmallMachine) -> None:
    table = leaf_table(small)
    small.write(table, 1, table << 12 | RW)
    small.frames.ref_count[table] += 1
    small.frames.type_count[table] += 1


def set_a_bit_that_is_refused(small: SmallMachine) -> None:
    table = leaf_table(small)
    small.write(table, 0, small.read(table, 0) | 0x80)


def change_xens_slot(small: SmallMachine) -> None:
    holder = small.own[1 if small.width is Width.X86_32P else 0]
    small.write(holder, small.xen_slots.first, 0)


def forget_that_it_is_validated(small: SmallMachine) -> None:
    small.frames.flags[leaf_table(small)] &= ~VALIDATED


def lose_a_free_frame(small: SmallMachine) -> None:
    small.frames.owner[small.own[-1]] = OWNER_FREE
    small.frames.flags[small.own[-1]] = 0
    small.frames.ref_count[small.own[-1]] = 0


BREACHES: list[tuple[Callable[[SmallMachine], None], str]] = [
    (count_too_many, r"but 1 references and 0 uses exist$"),
    (use_too_many, r"but 2 references and 1 uses exist$"),
    (name_a_strangers_frame, r"slot 1 of L1 table .* names mfn .* is d2's"),
    (name_xens_frame, r"slot 1 of L1 table .* names mfn .* is Xen's"),
    (name_a_frame_beyond_memory, r"names mfn 0x3333 is beyond"),
    (map_a_table_writable, r"slot 1 of L1 table .*, and names mfn .* type L1"),
    (set_a_bit_that_is_refused, r"bits that are not allowed"),
    (change_xens_slot, r"Xen's slots are not what Xen put there"),
    (forget_that_it_is_validated, r"and VALIDATED is False"),
    (lose_a_free_frame, r"^50 frames belong to nobody, 49 are on the free list"),
]


@pytest.mark.parametrize(
    ("breach", "found"), BREACHES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_breach_is_found(
    small: SmallMachine, breach: Callable[[SmallMachine], None], found: str
) -> None:
    small.chain(RW)
    small.audit()
    breach(small)
    with pytest.raises(AuditError) as error:
        small.audit()
    assert any(re.search(found, line) for line in str(error.value).splitlines())


def test_a_use_of_the_wrong_type_is_found(small: SmallMachine) -> None:
    page = small.own[-1]
    small.tables.get_page_and_type(page, FrameType.WRITABLE)
    with pytest.raises(AuditError, match="held as SEGDESC"):
        small.audit(AuditSubject(small.tables, [(page, FrameType.SEGDESC)]))


def test_a_privileged_domain_may_map_others_but_not_xen(small: SmallMachine) -> None:
    l1 = small.own[0]
    small.tables.pin(l1, FrameType.L1)
    small.tables.update_entry(small.maddr(l1, 0), small.foreign << 12 | RW, owner=2)
    subject = AuditSubject(small.tables, may_map_others=True)
    small.audit(subject)
    small.write(l1, 1, small.xen << 12 | P)
    with pytest.raises(AuditError, match="is Xen's"):
        small.audit(subject)


def test_all_differences_are_listed(small: SmallMachine) -> None:
    for mfn in small.own:
        small.frames.ref_count[mfn] += 1
    with pytest.raises(AuditError) as error:
        small.audit(AuditSubject(PageTables(small.frames, small.width, OWNER, small.xen_slots)))
    assert len(str(error.value).splitlines()) == len(small.own)
