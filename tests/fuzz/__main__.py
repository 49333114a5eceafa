"""`python -m tests.fuzz`: a run of any length, its report, or a failure once more."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from hypervisor.abi.width import Width
from tests.fuzz.actions import loads
from tests.fuzz.driver import Found, Fuzzer, replay
from tests.fuzz.report import report
from tests.fuzz.target import Setting


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, help="hypercalls, for each width")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", choices=[width.name for width in Width], help="one width only")
    parser.add_argument("--replay", type=Path, help="a file of actions, as a failure prints them")
    parser.add_argument("--round", type=int, default=0, help="the round whose machine to replay on")
    options = parser.parse_args()
    widths = [Width[options.width]] if options.width else list(Width)
    if options.replay:
        replay(Setting.of_round(widths[0], options.round), loads(options.replay.read_text()))
        return 0
    for width in widths:
        fuzzer = Fuzzer(width, options.seed)
        began = time.perf_counter()
        try:
            digest = fuzzer.run(options.calls)
        except Found as found:
            sys.stdout.write(f"{found}\n")
            return 1
        sys.stdout.write(f"{report(fuzzer)}\n")
        sys.stdout.write(f"digest {digest[:16]}, {time.perf_counter() - began:.1f} s\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
