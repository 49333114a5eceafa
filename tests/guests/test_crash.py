"""A domain that ends badly: what is said of it, and that nobody else notices."""

from __future__ import annotations

import re
from typing import Final

import pytest

from guests import REPORT_PASS, WIDTHS, guest_path
from hypervisor.api import DomainState, Machine

TOP_LEVEL: Final = {"x86_32": 2, "x86_32p": 3, "x86_64": 4}
RING: Final = {"x86_32": "e019", "x86_32p": "e019", "x86_64": "e033"}


def crash(width: str, how: str) -> str:
    """The report on `crash`, which had a neighbour that must pass."""
    with Machine(memory_mib=64) as machine:
        ticker = machine.create(guest_path("ticker", "x86_64"), memory_mib=16, cmdline="ticks=2")
        dom = machine.create(guest_path("crash", width), memory_mib=16, cmdline=f"how={how}")
        machine.run(time_limit_ns=10**10)
        assert dom.state is DomainState.CRASHED
        assert REPORT_PASS.search(ticker.console.output.decode())
        assert machine.xen_log.decode() == dom.crash_report
        return dom.crash_report or ""


def functions(report: str) -> list[str]:
    """The names in the call trace, the innermost first."""
    trace = report.split("Guest call trace:\n")[1].split("Last hypercalls:", maxsplit=1)[0]
    return re.findall(r"\[<[0-9a-f]+>\] (\w+)\+0x[0-9a-f]+", trace)


@pytest.mark.parametrize("width", WIDTHS)
def test_unhandled_fault_is_reported_as_xen_would(width: str) -> None:
    report = crash(width, "no-handler")
    digits = 16 if width == "x86_64" else 8
    wanted = [
        r"\(XEN\) d2v0 Unhandled: vec 14, #PF\[0002\]",
        r"\(XEN\) Pagetable walk from 0000000000decade:",
        rf"\(XEN\)  L{TOP_LEVEL[width]}\[0x0\d\d\] = [0-9a-f]{{16}} .+",
        r"\(XEN\) domain_crash called for d2 'crash' at \d+ ns",
        r"\(XEN\) Domain 2 \(vcpu#0\) crashed on cpu#0:",
        r"\(XEN\) ----\[ Xen-4\.17\S*  x86_64  debug=n  Not tainted \]----",
        r"\(XEN\) CPU:    0",
        rf"\(XEN\) RIP:    {RING[width]}:\[<[0-9a-f]{{16}}>\] write_to_nothing\+0x\w+",
        r"\(XEN\) RFLAGS: [0-9a-f]{16}   EM: 1   CONTEXT: pv guest \(d2v0\)",
        r"\(XEN\) rax: [0-9a-f]{16}   rbx: [0-9a-f]{16}   rcx: [0-9a-f]{16}",
        r"\(XEN\) cr3: [0-9a-f]{16}   cr2: 0000000000decade",
        r"\(XEN\) Guest code around <[0-9a-f]{16}> write_to_nothing\+0x\w+:",
        r"\(XEN\)  ([0-9a-f]{2} ){15}<c7> .*",  # mov dword [..], ..
        rf"\(XEN\) Guest stack trace from [er]sp=[0-9a-f]{{{digits}}}:",
        r"\(XEN\) Guest call trace:",
        r"\(XEN\) Last hypercalls:",
        r"\(XEN\)    set_trap_table from 0x[0-9a-f]+ hypercall_page\+0x\w+",
    ]
    lines = iter(report.splitlines())
    missing = [line for line in wanted if not any(re.fullmatch(line, seen) for seen in lines)]
    assert missing == [], report


@pytest.mark.parametrize("width", WIDTHS)
def test_call_trace_names_the_functions(width: str) -> None:
    names = functions(crash(width, "no-handler"))
    assert names[:3] == ["write_to_nothing", "second_floor", "first_floor"]


@pytest.mark.parametrize("width", WIDTHS)
def test_frame_that_cannot_be_written_ends_the_domain(width: str) -> None:
    report = crash(width, "stack")
    first, second = report.splitlines()[:2]
    wanted = r"^\(XEN\) d2v0 a frame for the guest's handler: cannot write at (0xdec\w+): it is not"
    found = re.match(wanted, first)
    assert found, report
    assert second == f"(XEN) Pagetable walk from {int(found[1], 16):016x}:"
    assert "(XEN)   Fault while accessing guest memory." in report
    assert functions(report)[0] == "trap_without_stack"
