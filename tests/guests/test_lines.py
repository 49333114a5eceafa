"""What our kernels print: where `hello` finds itself, when `ticker` ticks, what company changes."""

from __future__ import annotations

import re
from typing import Final

import pytest

from guests import REPORT_PASS, WIDTHS, guest_path
from hypervisor.abi.sched import ShutdownReason
from hypervisor.api import DomainHandle, Machine, RunEnd

SECOND: Final = 10**9
SELECTORS: Final = {"x86_32": "e019", "x86_32p": "e019", "x86_64": "e033"}
SLICE_US: Final = 1000


def console(dom: DomainHandle) -> str:
    return dom.console.output.decode().replace("\r", "")


# --- hello ----------------------------------------------------------------------------------------
def hello(width: str, name: str | None = None, cmdline: str = "") -> str:
    with Machine(memory_mib=64) as machine:
        dom = machine.create(guest_path("hello", width), name=name, memory_mib=24, cmdline=cmdline)
        assert machine.run(time_limit_ns=SECOND) is RunEnd.ALL_STOPPED
        assert dom.shutdown_reason == ShutdownReason.POWEROFF
        return console(dom)


@pytest.mark.parametrize("width", WIDTHS)
def test_hello_says_where_it_is(width: str) -> None:
    lines = hello(width, name="greeter", cmdline="a=1 b=2").splitlines()
    ring = 3 if width == "x86_64" else 1
    wanted = [
        rf"hello from {width}: \d\d-bit.*, .+ levels of page tables",
        rf"CS {SELECTORS[width]} SS \w{{4}} DS \w{{4}}: ring {ring}",
        r"domain 1, 24 MiB in frames from [0-9a-f]+",
        r'xenstore calls it "greeter"',
        r"Xen 4\.17\.ring1, its memory from [0-9a-f]+ up",
        r"features [0-9a-f]+: .*mmu_pt_update_preserve_ad.*",
        r"up 0\.0000\d+ s, started 1066521600 s after 1970",
        r'command line "a=1 b=2"',
        r"ring1: PASS hello \(\d+ checks\)",
    ]
    rest = iter(lines)
    missing = [line for line in wanted if not any(re.fullmatch(line, seen) for seen in rest)]
    assert missing == [], "\n".join(lines)


def test_only_the_64_bit_hello_says_why_it_is_in_ring_3() -> None:
    why = "It shares\n  ring 3 with its programs instead"
    assert [why in hello(width) for width in WIDTHS] == [False, False, True]


# --- ticker ---------------------------------------------------------------------------------------
def ticks(text: str) -> list[int]:
    """When each tick came, in us."""
    return [int(at) for at in re.findall(r"^tick \d+ at (\d+) us$", text, re.MULTILINE)]


@pytest.mark.parametrize("width", WIDTHS)
def test_ticks_of_a_lone_domain_come_at_their_deadlines(width: str) -> None:
    with Machine(memory_mib=32) as machine:
        dom = machine.create(
            guest_path("ticker", width), memory_mib=16, cmdline="ticks=8 period_ms=7"
        )
        machine.run(until=lambda: b"latest tick" in dom.console.output, time_limit_ns=SECOND)
        assert ticks(console(dom)) == [7000 * tick for tick in range(1, 9)]
        assert "latest tick: 0 us late" in console(dom)


def test_busy_neighbours_delay_a_tick_by_their_slices_and_no_more() -> None:
    with Machine(memory_mib=96, scheduler="rr") as machine:
        dom = machine.create(
            guest_path("ticker", "x86_32p"), memory_mib=16, cmdline="ticks=10 period_ms=5"
        )
        for width in ("x86_32", "x86_64"):
            busy = "loop=alu n=100000000"
            machine.create(guest_path("bench", width), memory_mib=16, cmdline=busy)
        machine.run(until=lambda: b"latest tick" in dom.console.output, time_limit_ns=SECOND)
        late = [at - 5000 * tick for tick, at in enumerate(ticks(console(dom)), 1)]
        assert len(late) == 10
        assert 0 <= min(late) <= max(late) <= 2 * SLICE_US
        assert max(late) > 0


# --- company --------------------------------------------------------------------------------------
@pytest.mark.parametrize("width", WIDTHS)
def test_segment_that_goes_while_others_run_is_reported_to_its_kernel(width: str) -> None:
    """Alone, nobody else runs and FS is not loaded anew: that check of `traps` is skipped."""
    with Machine(memory_mib=64, scheduler="rr") as machine:
        dom = machine.create(guest_path("traps", width), memory_mib=16, cmdline="only=failsafe")
        machine.create(guest_path("ticker", "x86_32"), memory_mib=16)
        machine.run(until=lambda: b"ring1: " in dom.console.output, time_limit_ns=SECOND)
        assert REPORT_PASS.search(console(dom)), console(dom)
        assert re.search(r"^ok +failsafe\.fs ", console(dom), re.MULTILINE)
        assert re.search(r"^ok +failsafe\.frame ", console(dom), re.MULTILINE)


def test_domain_is_the_same_whoever_else_is_there() -> None:
    """Frames and numbers differ, what `refusals` is told does not."""

    def outputs(*widths: str) -> list[str]:
        with Machine(memory_mib=96) as machine:
            doms = [
                machine.create(guest_path("refusals", width), memory_mib=16) for width in widths
            ]
            machine.run(time_limit_ns=SECOND)
            return [console(dom) for dom in doms]

    alone = [outputs(width)[0] for width in WIDTHS]
    assert outputs(*WIDTHS) == alone
