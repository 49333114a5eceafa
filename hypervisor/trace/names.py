"""What a person calls an entry's number: the hypercall's or the exception's name.

Names are put in when a trace is written, not when the entry happens: the guest does not wait for
them.
"""

from __future__ import annotations

from typing import Final

from hypervisor.abi.xen import HypercallNr

# SDM 3A, table 6-1
EXCEPTION_NAMES: Final = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF",
    10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC",
    19: "#XM",
}  # fmt: skip

_HYPERCALL_NAMES: Final = {int(number): number.name.lower() for number in HypercallNr}


def entry_name(kind: str, number: int) -> str:
    """The name that belongs to an entry of `kind` with `number`; the number when it has none."""
    if kind == "hypercall":
        return _HYPERCALL_NAMES.get(number, f"hypercall {number}")
    if kind == "exception":
        return EXCEPTION_NAMES.get(number, f"vector {number}")
    if kind == "interrupt":
        return f"int {number:#x}"
    return kind
