"""A hundred thousand hypercalls that no sane kernel makes: nobody but their maker is hurt.

How they are made is in `tests/fuzz`. After every fifty the frame table is recounted and all that
is the neighbour's compared; anything that comes out but a result, a refusal or the end of the
domain is a failure, made small and printed with what does it again. What the run reached is
compared with floors: a grammar that lost its way would find nothing, and would look fine.

    python -m pytest tests/adversarial/test_fuzz.py --fuzz-calls 3000000 --fuzz-seed 7
    python -m tests.fuzz --width X86_64 --calls 1000000 --seed 7
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.errors import XenError
from hypervisor.abi.event_channel import EvtchnSend
from hypervisor.abi.width import Width
from hypervisor.abi.xen import HypercallNr, MmuextCmd
from hypervisor.hypercalls import table
from hypervisor.hypercalls.caller import Caller
from hypervisor.hypercalls.table import SUBOPS, Absent, SubOp
from hypervisor.mm.frames import PINNED
from tests.fuzz import coverage
from tests.fuzz.actions import Action, Kind, Term, dumps, loads
from tests.fuzz.coverage import Site, name_of
from tests.fuzz.driver import Found, Fuzzer, replay, shrunk
from tests.fuzz.report import report
from tests.fuzz.target import Setting

WIDTHS = pytest.mark.parametrize("width", Width, ids=lambda width: width.name)
FLOORS_FROM: Final = 33_000  # hypercalls of a width: as many as there are without the flag
SUCCESSES: Final = 0.2  # of all hypercalls
OPERATIONS: Final = 0.9  # of those present, that succeeded at least once
HYPERCALL_REFUSALS: Final = 0.7  # of the sites in hypervisor/hypercalls
_SHORT: Final = 1500

#: Refusals in `mm` that no hypercall can come to, each with the reason and a unit test instead.
UNREACHABLE: Final = {
    "mm.frames:get_page#1": "2^31 references (test_frames: too many references)",
    "mm.frames:release_allocation#0": "every caller looks first (test_frames: given back twice)",
    "mm.pagetables:_check_pae_l3#0": "needs frames above 4 GiB (test_pagetables: below 4 GiB)",
}
_PAE_ONLY: Final = {
    "mm.pagetables:_check_pae_l3#1",
    "mm.pagetables:_get_xen_l2#0",
    "mm.pagetables:_refuse_private_slot#1",
}
#: And those that another width is refused by.
OF_OTHER_WIDTHS: Final[dict[Width, set[str]]] = {
    Width.X86_32: _PAE_ONLY,
    Width.X86_32P: set(),
    Width.X86_64: _PAE_ONLY | {"mm.descriptors:_checked_segment#0"},
}


@pytest.mark.slow
@WIDTHS
def test_hypercalls_of_a_malicious_domain(
    width: Width,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    nr_calls = request.config.getoption("--fuzz-calls") // len(Width)
    fuzzer = Fuzzer(width, request.config.getoption("--fuzz-seed"))
    fuzzer.run(nr_calls)
    if below_floors(fuzzer):
        fuzzer.run(nr_calls // 4)  # what is rare has a little longer
    record_property("fuzz", report(fuzzer))
    assert fuzzer.coverage.calls >= nr_calls
    if nr_calls >= FLOORS_FROM:
        assert not below_floors(fuzzer)


def below_floors(fuzzer: Fuzzer) -> list[str]:
    """What the run should have come to, and did not."""
    seen = fuzzer.coverage
    present = coverage.operations(fuzzer.width)
    problems = [f"{name_of(each)} was never called" for each in sorted(present - seen.reached())]
    excused = UNREACHABLE.keys() | OF_OTHER_WIDTHS[fuzzer.width]
    problems += [f"{site} never refused" for site in seen.missing("mm") if str(site) not in excused]
    for share, floor, what in (
        (seen.succeeded / seen.calls, SUCCESSES, "hypercalls"),
        (len(present & seen.done()) / len(present), OPERATIONS, "operations"),
        (seen.share("hypercalls"), HYPERCALL_REFUSALS, "refusals in hypercalls"),
    ):
        if share < floor:
            problems.append(f"{share:.1%} of the {what}, not {floor:.0%}")
    return problems


def test_what_is_excused_exists() -> None:
    """A refusal that was renamed or removed is not on the list for ever."""
    known = {str(site) for site in coverage.sites().values()}
    assert known >= UNREACHABLE.keys() | set().union(*OF_OTHER_WIDTHS.values())
    assert len([site for site in known if site.startswith("mm.")]) > 20


@WIDTHS
def test_a_short_run(width: Width) -> None:
    fuzzer = Fuzzer(width, seed=1)
    fuzzer.run(_SHORT)
    assert fuzzer.coverage.succeeded / fuzzer.coverage.calls > SUCCESSES
    assert fuzzer.domains > fuzzer.rounds
    assert fuzzer.coverage.share("mm") > 0.3


def test_the_same_seed_is_the_same_run() -> None:
    runs = [Fuzzer(Width.X86_64, seed) for seed in (3, 3, 4)]
    first, again, other = (run.run(700) for run in runs)
    assert first == again
    assert first != other
    assert runs[0].coverage.signals == runs[1].coverage.signals


# --- the fuzzer itself
# ------------------------------------------------------------------------------
def test_an_operation_that_gets_a_row_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = []

    def novelty(caller: Caller, arg: EvtchnSend) -> None:
        ports.append(arg.port)

    rows: dict[int, Any] = dict(SUBOPS[HypercallNr.EVENT_CHANNEL_OP])
    rows[77] = SubOp(EvtchnSend, novelty)
    monkeypatch.setitem(SUBOPS, HypercallNr.EVENT_CHANNEL_OP, rows)
    monkeypatch.setattr("hypervisor.hypercalls.event_channel.EVTCHN_OPS", rows)
    grammar = Fuzzer(Width.X86_32P).grammar
    drawn = [action for _ in range(6000) for action in grammar.actions()]
    new = [
        action
        for action in drawn
        if action.number == HypercallNr.EVENT_CHANNEL_OP and action.args[0] == Term(plus=77)
    ]
    replay(Setting.of_round(Width.X86_32P, 0), new[:20])
    assert len(set(ports)) > 2


def test_a_site_that_refuses_is_noted() -> None:
    lines: set[tuple[str, int]] = set()
    with coverage.noted(lines), pytest.raises(XenError):
        table.call_subop(None, {1: Absent(Errno.ENOSYS, "why")}, 1, 0)  # type: ignore[arg-type]
    (place,) = lines
    assert coverage.sites()[place] == Site("hypercalls.table", "call_subop", 1)


def test_a_bug_is_found_made_small_and_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that needs two actions: a pin, and then anything unpinned."""
    row = SUBOPS[HypercallNr.MMUEXT_OP]
    monkeypatch.setitem(row, MmuextCmd.UNPIN_TABLE, SubOp(None, _fails_if_pinned))
    with pytest.raises(Found, match="ZeroDivisionError") as found:
        Fuzzer(Width.X86_32).run(3000)
    text = str(found.value)
    assert "python -m tests.fuzz --width X86_32 --seed 0" in text
    small = loads(text.partition("does them:\n")[2])
    assert 0 < len(small) <= 6
    number = int(text.partition("--round ")[2].split()[0])
    with pytest.raises(ZeroDivisionError):
        replay(Setting.of_round(Width.X86_32, number), small)


def _fails_if_pinned(caller: Caller, target: Any, op: Any) -> None:
    frames = caller.host.frames
    if any(frames.flags[mfn] & PINNED for mfn in target.p2m[-24:]):
        raise ZeroDivisionError("a bug of ours")


def test_what_does_not_fail_again_stays_as_it_was() -> None:
    actions = [Action(Kind.CALL, int(HypercallNr.XEN_VERSION), (Term(), Term()))]
    error = ValueError("it was the weather")
    assert shrunk(Setting.of_round(Width.X86_64, 0), actions, error) == (actions, error)


@WIDTHS
def test_actions_are_read_as_they_were_written(width: Width) -> None:
    fuzzer = Fuzzer(width)
    actions = [action for _ in range(200) for action in fuzzer.grammar.actions()]
    assert loads(dumps(actions)) == actions
