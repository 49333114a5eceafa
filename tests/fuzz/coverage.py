"""What a run has come to: which refusals, which operations, with which results.

A coverage-guided fuzzer keeps what was new. The signal here is the *refusal site*: each place in
the sources that makes a XenError, together with the operation that was being done, and each result
of each operation. It is noted when the error is made, so it costs about a microsecond a refusal and
next to nothing: 3 % of a run. Lines of `mm`, `hypercalls`, `grants` and `events`, by `sys.settrace`
limited to those files, make it 3.3 times as long (both measured with CPython 3.11; the cheaper
`sys.monitoring` came with 3.12), and tell hardly more, as most branches there either refuse or do
what an operation of its own asks for. All sites are found by reading the sources, so one that is
written tomorrow is counted tomorrow.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import hypervisor
from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.layout import layout
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr, MmuextOp
from hypervisor.hypercalls.table import HYPERCALLS, SUBOPS, SubOp
from tests.fuzz.actions import Action

_ROOT: Final = Path(hypervisor.__file__).parent
_ENOUGH: Final = 4  # successes
GUIDED: Final = ("mm", "hypercalls", "grants", "events")

#: Results besides those that a guest sees: its domain is no more, and a call not made to its end.
ENDED: Final = -(1 << 40)
UNFINISHED: Final = ENDED - 1

Operation = tuple[int, int]  # hypercall, operation; -1 where it has none


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """A place that refuses: module, function, and which of those in it."""

    module: str
    function: str
    nth: int

    def __str__(self) -> str:
        return f"{self.module}:{self.function}#{self.nth}"


@cache
def sites() -> dict[tuple[str, int], Site]:
    """All places that make a XenError, by file and each of the lines that they have."""
    found: dict[tuple[str, int], Site] = {}
    for package in GUIDED:
        for path in sorted((_ROOT / package).glob("*.py")):
            _look_into(path, f"{package}.{path.stem}", found)
    return found


def _look_into(path: Path, module: str, found: dict[tuple[str, int], Site]) -> None:
    seen: Counter[str] = Counter()

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "XenError":
            site = Site(module, function, seen[function])
            seen[function] += 1
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                found[str(path), line] = site
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(path.read_text()), "")


@contextmanager
def noted(into: set[tuple[str, int]]) -> Iterator[None]:
    """Put the place of each XenError that is made meanwhile into `into`."""
    original = XenError.__init__

    def init(self: XenError, errno: Errno, why: str) -> None:
        frame = sys._getframe(1)
        into.add((frame.f_code.co_filename, frame.f_lineno))
        original(self, errno, why)

    XenError.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        XenError.__init__ = original  # type: ignore[method-assign]


@dataclass(slots=True)
class Coverage:
    """What was seen so far."""

    signals: set[tuple[object, ...]] = field(default_factory=set)
    hit: Counter[Site] = field(default_factory=Counter)
    results: Counter[tuple[Operation, int]] = field(
        default_factory=Counter
    )  # 0: success, else errno
    calls: int = 0
    succeeded: int = 0

    def note(self, done: list[Operation], result: int, lines: set[tuple[str, int]]) -> bool:
        """One hypercall's; True if anything of it is new."""
        known = len(self.signals)
        self.calls += 1
        outcome = min(result, 0)
        self.succeeded += outcome == 0
        for operation in done:
            self.results[operation, outcome] += 1
            self.signals.add((operation, outcome))
        table = sites()
        for place in lines:
            if (site := table.get(place)) is not None:
                self.hit[site] += 1
                self.signals.add((site, done[0]))
        return len(self.signals) > known

    def note_store(self, lines: set[tuple[str, int]]) -> None:
        """The same for what is no hypercall."""
        table = sites()
        self.hit.update(table[place] for place in lines if place in table)

    def reached(self) -> set[Operation]:
        """Operations that were called."""
        return {operation for operation, _ in self.results}

    def done(self) -> set[Operation]:
        """Operations that have succeeded at least once, if only in ending the domain."""
        return {operation for operation, outcome in self.results if outcome in (0, ENDED)}

    def starved(self, present: set[Operation]) -> set[Operation]:
        """Operations that have hardly ever succeeded."""
        wins: Counter[Operation] = Counter()
        for (operation, outcome), count in self.results.items():
            if outcome in (0, ENDED):
                wins[operation] += count
        return {operation for operation in present if wins[operation] < _ENOUGH}

    def missing(self, package: str) -> list[Site]:
        """The sites of a package that never refused anything."""
        return sorted(
            site for site in set(sites().values()) - set(self.hit) if _is_of(site, package)
        )

    def share(self, package: str) -> float:
        """How much of a package's sites did."""
        total = [site for site in set(sites().values()) if _is_of(site, package)]
        return 1 - len(self.missing(package)) / len(total) if total else 1.0


def _is_of(site: Site, package: str) -> bool:
    return site.module.startswith(f"{package}.")


def operations(width: Width) -> set[Operation]:
    """Everything that the tables list as present."""
    found = {(int(number), -1) for number in HYPERCALLS if number not in SUBOPS}
    for number, table in SUBOPS.items():
        found |= {(int(number), int(op)) for op, row in table.items() if isinstance(row, SubOp)}
    return found


def operations_of(action: Action, width: Width) -> list[Operation]:
    """What a hypercall does: its operation, for mmuext_op each that its list begins with."""
    number = action.number
    if number == HypercallNr.MMUEXT_OP:
        per_op = 3 if layout(MmuextOp, width).size == 12 else 4
        items = action.blocks[0].items if action.blocks else ()
        return [(number, term.plus) for size, term in items[::per_op] if size == 4] or [
            (number, -1)
        ]
    if number in SUBOPS:
        operation = action.args[0] if action.args else None
        return [(number, operation.plus if operation and operation.pool == "num" else -1)]
    return [(number, -1)]


def name_of(operation: Operation) -> str:
    """In Xen's words."""
    number, sub = operation
    names = {int(nr): nr.name for nr in HypercallNr}
    name = names.get(number, str(number))
    if sub < 0 or number not in names:
        return name
    for candidate in SUBOPS.get(HypercallNr(number), {}):
        if candidate == sub:
            return f"{name}.{getattr(candidate, 'name', sub)}"
    return f"{name}.{sub}"
