"""Tables of hypercalls: what is there, what is not and why, and how arguments get in and out.

A module per family registers its hypercalls with `@hypercall` and, where the first argument selects
an operation, lists them in a table of `SubOp` and `Absent` rows. `dispatch` and the coverage page
read the same tables, so neither can claim what the other does not do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.xen import HypercallNr

if TYPE_CHECKING:
    from hypervisor.hypercalls.caller import Caller

Handler = Callable[..., "int | None"]


class Preempted(Exception):
    """A long hypercall lets others run: the guest is to make it again, with `arguments`.

    What Xen calls a continuation. Whoever loops over a number that a guest chose raises this now
    and then, with what is left to do.
    """

    def __init__(self, *arguments: int) -> None:
        super().__init__(*arguments)
        self.arguments = arguments


@dataclass(frozen=True, slots=True)
class Absent:
    """An operation that this hypervisor does not have; the guest gets `errno`."""

    errno: Errno
    reason: str


@dataclass(frozen=True, slots=True)
class SubOp:
    """An operation selected by a number: its argument's structure and its handler.

    The handler gets (caller, argument) or (caller,) and returns the result, None meaning 0. With
    `copy_back` the argument, as the handler left it, is written back after success.
    """

    argument: type[Any] | None
    handler: Handler
    copy_back: bool = False


Row = SubOp | Absent
SubOps = Mapping[int, Row]


@dataclass(frozen=True, slots=True)
class Hypercall:
    """A hypercall: how many register arguments it takes, and its handler.

    `plain` has the operations that need nothing but the caller, for the shortest way to them.
    """

    number: HypercallNr
    nr_args: int
    handler: Handler
    plain: Mapping[int, Handler] = field(default_factory=dict)


HYPERCALLS: Final[dict[int, Hypercall]] = {}
ABSENT: Final[dict[int, Absent]] = {}
SUBOPS: Final[dict[HypercallNr, SubOps]] = {}


def hypercall(
    number: HypercallNr, *, args: int, operations: SubOps | None = None
) -> Callable[[Handler], Handler]:
    """Register the handler of a hypercall. Raises ValueError if the number has one already.

    `operations` are those that the handler would find by `call_subop`.
    """
    plain = {
        operation: row.handler
        for operation, row in (operations or {}).items()
        if isinstance(row, SubOp) and row.argument is None
    }

    def register(handler: Handler) -> Handler:
        if number in HYPERCALLS:
            raise ValueError(f"hypercall {number.name} is registered twice")
        HYPERCALLS[number] = Hypercall(number, args, handler, plain)
        return handler

    return register


def absent(number: HypercallNr, reason: str, errno: Errno = Errno.ENOSYS) -> None:
    """Record why a hypercall is not there."""
    if number in ABSENT or number in HYPERCALLS:
        raise ValueError(f"hypercall {number.name} is registered twice")
    ABSENT[number] = Absent(errno, reason)


def subops(number: HypercallNr, table: SubOps) -> SubOps:
    """Record the operations of a hypercall, for the coverage page."""
    SUBOPS[number] = table
    return table


def call_subop(caller: Caller, table: SubOps, operation: int, argument_vaddr: int) -> int:
    """Look up an operation, copy its argument in, do it, and copy the argument back if it says so.

    An unknown operation is -ENOSYS, and of its number 32 bits count: it is an int to Xen. If
    copying back fails the guest gets -EFAULT and what was done stays done, as in Xen.
    """
    row = table.get(operation & 0xFFFF_FFFF)
    if row is None:
        raise XenError(Errno.ENOSYS, f"operation {operation} is unknown")
    if isinstance(row, Absent):
        raise XenError(row.errno, row.reason)
    if row.argument is None:
        return row.handler(caller) or 0
    shape = layout(row.argument, caller.width)
    argument = shape.unpack_from(caller.mem.read(argument_vaddr, shape.size))
    result = row.handler(caller, argument) or 0
    if row.copy_back:
        caller.mem.write(argument_vaddr, shape.pack(argument))
    return result


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """One line of the coverage page."""

    hypercall: str
    number: int
    subop: str  # "" for the hypercall as a whole
    present: bool
    reason: str  # why not, when absent


def coverage() -> list[CoverageRow]:
    """Every number in Xen's public header, present or absent with the reason."""
    rows = []
    for number in HypercallNr:
        gap = ABSENT.get(number)
        rows.append(
            CoverageRow(
                number.name, int(number), "", number in HYPERCALLS, gap.reason if gap else ""
            )
        )
        for operation, row in sorted(SUBOPS.get(number, {}).items()):
            rows.append(_subop_row(number, operation, row))
    return rows


def _subop_row(number: HypercallNr, operation: int, row: Row) -> CoverageRow:
    name = getattr(operation, "name", str(operation))
    reason = row.reason if isinstance(row, Absent) else ""
    return CoverageRow(number.name, int(operation), name, isinstance(row, SubOp), reason)
