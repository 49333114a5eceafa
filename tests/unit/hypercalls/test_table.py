"""The tables: every number of the public headers has a row, and each row its reason."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import pytest

from hypervisor.abi.callback import CallbackOp
from hypervisor.abi.errno import Errno
from hypervisor.abi.event_channel import EvtchnOp
from hypervisor.abi.grant_table import GnttabOp
from hypervisor.abi.nmi import XennmiOp
from hypervisor.abi.physdev import PhysdevOp
from hypervisor.abi.sched import SchedOp
from hypervisor.abi.vcpu import VcpuOp
from hypervisor.abi.version import XenverCmd
from hypervisor.abi.xen import HypercallNr, MmuextCmd
from hypervisor.hypercalls import coverage
from hypervisor.hypercalls.table import ABSENT, HYPERCALLS, SUBOPS, Absent, SubOp, hypercall
from hypervisor.hypercalls.table import absent as record_absent
from tests.support.callers import Guest

FAMILIES: Mapping[HypercallNr, type[IntEnum]] = {
    HypercallNr.CALLBACK_OP: CallbackOp,
    HypercallNr.EVENT_CHANNEL_OP: EvtchnOp,
    HypercallNr.GRANT_TABLE_OP: GnttabOp,
    HypercallNr.MMUEXT_OP: MmuextCmd,
    HypercallNr.NMI_OP: XennmiOp,
    HypercallNr.PHYSDEV_OP: PhysdevOp,
    HypercallNr.SCHED_OP: SchedOp,
    HypercallNr.VCPU_OP: VcpuOp,
    HypercallNr.XEN_VERSION: XenverCmd,
}
#: Questions whose answer is a bare string, and so have no structure in a table.
STRINGS = {
    XenverCmd.EXTRAVERSION,
    XenverCmd.CAPABILITIES,
    XenverCmd.CHANGESET,
    XenverCmd.GUEST_HANDLE,
}


@pytest.mark.parametrize("number", HypercallNr, ids=lambda number: number.name)
def test_hypercall_is_present_or_absent_for_a_reason(number: HypercallNr) -> None:
    assert (number in HYPERCALLS) != (number in ABSENT)
    if number in ABSENT:
        assert ABSENT[number].reason


@pytest.mark.parametrize("number", FAMILIES, ids=lambda number: number.name)
def test_every_operation_of_a_family_has_a_row(number: HypercallNr) -> None:
    rows = set(SUBOPS[number])
    if number is HypercallNr.XEN_VERSION:
        rows |= STRINGS
    assert {operation.name for operation in FAMILIES[number] if operation not in rows} == set()


def test_rows_that_are_absent_say_why() -> None:
    for number, table in SUBOPS.items():
        for operation, row in table.items():
            assert isinstance(row, SubOp) or row.reason, f"{number.name} {operation}"


def test_coverage_lists_each_number_once() -> None:
    rows = [row for row in coverage() if not row.subop]
    assert [row.number for row in rows] == [int(number) for number in HypercallNr]
    assert all(row.present or row.reason for row in coverage())


def test_number_is_registered_once() -> None:
    with pytest.raises(ValueError, match=r"^hypercall EVENT_CHANNEL_OP is registered twice$"):
        hypercall(HypercallNr.EVENT_CHANNEL_OP, args=2)(lambda caller: 0)
    with pytest.raises(ValueError, match=r"^hypercall IRET is registered twice$"):
        record_absent(HypercallNr.IRET, "it is there")


def test_absent_row_carries_its_errno() -> None:
    assert ABSENT[HypercallNr.DOMCTL] == Absent(Errno.EPERM, "no toolstack runs in Domain 0 yet")


def test_absent_hypercall_answers_its_errno(guest: Guest) -> None:
    guest.enter()
    for number, row in ABSENT.items():
        assert guest.host.call_by_number(number, (0, 0)) == -row.errno
