"""What a run has reached, in words."""

from __future__ import annotations

from tests.fuzz import coverage
from tests.fuzz.coverage import name_of
from tests.fuzz.driver import Fuzzer

_RARE = 12  # times in a run


def report(fuzzer: Fuzzer) -> str:
    """A page of it."""
    seen = fuzzer.coverage
    present = coverage.operations(fuzzer.width)
    lines = [
        f"{fuzzer.width.name}, seed {fuzzer.seed}: {seen.calls} hypercalls on {fuzzer.rounds} "
        f"machines by {fuzzer.domains} domains; {seen.succeeded / seen.calls:.0%} succeeded",
        f"  operations: {len(present)} present, never called: "
        f"{_list(map(name_of, sorted(present - seen.reached())))}; never successful: "
        f"{_list(map(name_of, sorted(present - seen.done())))}",
        f"  corpus: {len(fuzzer.corpus)} lists, {len(seen.signals)} signals",
    ]
    for package in coverage.GUIDED:
        missing = seen.missing(package)
        lines.append(f"  refusals in {package}: {seen.share(package):.0%}; never: {_list(missing)}")
    rare = sorted((count, str(site)) for site, count in seen.hit.items() if count < _RARE)
    lines.append(f"  rarely: {_list(f'{site} {count}x' for count, site in rare)}")
    return "\n".join(lines)


def _list(names: object) -> str:
    return ", ".join(map(str, names)) or "none"  # type: ignore[call-overload]
