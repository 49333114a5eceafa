"""`demand` counts its own entries into Xen; here they are counted from outside, by the trace."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from guests import REPORT_PASS, WIDTHS, guest_path
from hypervisor.abi.xen import HypercallNr
from hypervisor.api import DomainHandle, Entry, Machine
from hypervisor.x86.flags import PFEC_USER, Vector

NAMES = {int(number): number.name for number in HypercallNr}
USER_DATA = range(0x1000_1000, 0x1000_9000)
PAGES = 8


@dataclass(slots=True)
class Story:
    """What a run printed, and every entry into the VMM."""

    text: str
    entries: list[Entry]
    table_writes: int


def story(width: str) -> Story:
    entries: list[Entry] = []
    with Machine(memory_mib=64) as machine:
        dom: DomainHandle = machine.create(guest_path("demand", width), memory_mib=16)
        machine.on_entry.append(entries.append)
        machine.run()
        text = dom.console.output.decode()
        assert REPORT_PASS.search(text), text
        return Story(text, entries, dom.stats["table_writes"])


@pytest.fixture(scope="module", params=WIDTHS)
def told(request: pytest.FixtureRequest) -> tuple[str, Story]:
    return request.param, story(request.param)


def page_faults(entries: list[Entry]) -> list[int]:
    """Where in `entries` the page faults are."""
    return [
        at
        for at, entry in enumerate(entries)
        if entry.kind == "exception" and entry.number == Vector.PF
    ]


def what_follows(entries: list[Entry]) -> list[tuple[str, str]]:
    """For each page fault of user mode in its data: the next two entries."""
    found = []
    for at in page_faults(entries):
        error, vaddr = entries[at].args
        if error & PFEC_USER and vaddr in USER_DATA:
            first, second = (_word(entry) for entry in entries[at + 1 : at + 3])
            found.append((first, second))
    return found


def _word(entry: Entry) -> str:
    return NAMES[entry.number] if entry.kind == "hypercall" else entry.kind


def test_a_fault_is_delivered_resolved_and_returned_from(told: tuple[str, Story]) -> None:
    _, story = told
    by_hypercall = [after for after in what_follows(story.entries) if after[1] == "IRET"]
    assert set(by_hypercall) == {("UPDATE_VA_MAPPING", "IRET")}


def test_a_native_iret_leaves_two_entries(told: tuple[str, Story]) -> None:
    """The next entry is the next page's fault; behind the first and the last page touched it is
    what the kernel does for a system call."""
    width, story = told
    native = [after for after in what_follows(story.entries) if after[1] != "IRET"]
    assert native == [("UPDATE_VA_MAPPING", "exception")] * (0 if width == "x86_64" else PAGES - 2)


def test_every_fault_of_the_story_is_one_of_the_vmms(told: tuple[str, Story]) -> None:
    width, story = told
    touched_twice = PAGES if width == "x86_64" else 2 * PAGES
    family, forker, stray = 6, 3 * PAGES, 1
    assert len(what_follows(story.entries)) == touched_twice + family + forker + stray


def test_plain_stores_to_a_table_are_entries_too(told: tuple[str, Story]) -> None:
    _, story = told
    of_kernel = [
        at for at in page_faults(story.entries) if not story.entries[at].args[0] & PFEC_USER
    ]
    assert story.table_writes == len(of_kernel) == PAGES


def test_it_says_what_each_way_costs(told: tuple[str, Story]) -> None:
    _, story = told
    costs = re.findall(r"hypercalls (\d+), trapped stores (\d+): entries (\d+)", story.text)
    assert costs == [("8", "0", "8"), ("2", "0", "2"), ("1", "8", "9")]
