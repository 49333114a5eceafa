"""What a person calls an entry's number: the hypercall's or the exception's name.

Names are put in when a trace is written, not when the entry happens: the guest does not wait for
them.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Final

from hypervisor.abi.xen import HypercallNr
from hypervisor.hypercalls.memory import MEMOP_EXTENT_SHIFT
from hypervisor.hypercalls.table import SUBOPS
from hypervisor.probes import Entry

# SDM 3A, table 6-1
EXCEPTION_NAMES: Final = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF",
    10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC",
    19: "#XM",
}  # fmt: skip

_HYPERCALL_NAMES: Final = {int(number): number.name.lower() for number in HypercallNr}

_IN_STRUCTURES: Final = frozenset({HypercallNr.MMUEXT_OP})  # not in the first argument


def operation_name(entry: Entry) -> str | None:
    """The operation that a hypercall's first argument selects, None where it selects none."""
    if entry.kind != "hypercall" or not entry.args:
        return None
    operation = entry.args[0] & 0xFFFF_FFFF
    if entry.number == HypercallNr.MEMORY_OP:
        operation &= (1 << MEMOP_EXTENT_SHIFT) - 1
    return _operations(entry.number).get(operation)


@cache
def _operations(number: int) -> dict[int, str]:
    """All operations of a hypercall, absent ones too."""
    if number not in _HYPERCALL_NAMES or number in _IN_STRUCTURES:
        return {}
    table = SUBOPS.get(HypercallNr(number), {})
    kinds = {type(key) for key in table if isinstance(key, IntEnum)}
    return {int(member): member.name.lower() for kind in kinds for member in kind}


def shown_arguments(entry: Entry) -> list[str]:
    """An entry's arguments for people: the operation by its name, the others as they are."""
    args = [f"{arg:#x}" for arg in entry.args]
    operation = operation_name(entry)
    return args if operation is None else [operation, *args[1:]]


def entry_name(kind: str, number: int) -> str:
    """The name that belongs to an entry of `kind` with `number`; the number when it has none."""
    if kind == "hypercall":
        return _HYPERCALL_NAMES.get(number, f"hypercall {number}")
    if kind == "exception":
        return EXCEPTION_NAMES.get(number, f"vector {number}")
    if kind == "interrupt":
        return f"int {number:#x}"
    return kind
