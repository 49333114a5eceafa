"""The attackers of `guests/attacks/`: stopped, and unnoticed by the neighbour; and let through when
the check that each names is missing, so that it is known to be the one that stops it."""

from __future__ import annotations

import re
from functools import cache

import pytest

from guests import WIDTHS
from hypervisor.api import DomainState, Machine
from tests.support import weakened
from tests.support.attacks import FOLDER, Attack, attacks, came_of_it, scene

EACH = pytest.mark.parametrize(
    ("attack", "width"),
    [
        pytest.param(attack, width, id=f"{attack.name}-{width}")
        for attack in attacks()
        for width in attack.widths
    ],
)
IN_DEPTH = pytest.mark.parametrize(
    ("attack", "width", "check"),
    [
        pytest.param(attack, width, check, id=f"{attack.name}-{width}-{check.rpartition('.')[2]}")
        for attack in attacks()
        if len(attack.checks) > 1
        for width in attack.widths
        for check in attack.checks
    ],
)


@pytest.fixture
def unaudited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hypervisor without a check is allowed to lose count."""
    monkeypatch.setattr(Machine, "always_audit", False)


@cache
def console_without_attackers(width: str) -> bytes:
    """What the neighbour says when it is alone."""
    with scene(width) as alone:
        alone.machine.run()
        return bytes(alone.neighbour.console.output)


@EACH
def test_it_is_stopped_and_the_neighbour_notices_nothing(attack: Attack, width: str) -> None:
    with scene(width) as beside:
        beside.pause_neighbour()
        before = beside.neighbours_state()
        attacker = beside.attack(attack.name)
        verdict, seen = came_of_it(attacker)
        assert verdict == ("crash" if ends_in_crash(attack) else "ok"), seen
        assert beside.neighbours_state() == before
        beside.neighbour.unpause()
        beside.machine.run()
        assert beside.neighbour.state is DomainState.SHUTDOWN
        assert bytes(beside.neighbour.console.output) == console_without_attackers(width)


def ends_in_crash(attack: Attack) -> bool:
    return f'ATTACK({attack.name}, "crash")' in (FOLDER / f"{attack.name}.c").read_text()


@EACH
def test_it_gets_out_without_the_check(attack: Attack, width: str, unaudited: None) -> None:
    with weakened.without(*attack.checks), scene(width) as beside:
        beside.pause_neighbour()
        verdict, seen = came_of_it(beside.attack(attack.name))
        assert verdict == "FAIL"
        assert "got ESCAPED: " in seen


@IN_DEPTH
def test_one_check_of_several_is_enough(
    attack: Attack, width: str, check: str, unaudited: None
) -> None:
    others = [other for other in attack.checks if other != check]
    with weakened.without(*others), scene(width) as beside:
        beside.pause_neighbour()
        _, seen = came_of_it(beside.attack(attack.name))
        assert "ESCAPED" not in seen


@cache
def everything_at_once(width: str, turn: int) -> tuple[str, list[tuple[str, str]]]:
    """One neighbour that goes on, and one attacker after the other: the machine then, and what
    came of them."""
    with scene(width) as beside:
        results = []
        free = beside.machine.vmm.host.frames.nr_free
        for attack in attacks():
            attacker = beside.attack(attack.name) if width in attack.widths else None
            if attacker is not None:
                results.append(came_of_it(attacker))
                attacker.destroy()
        assert beside.machine.vmm.host.frames.nr_free == free
        beside.machine.run()
        assert bytes(beside.neighbour.console.output) == console_without_attackers(width)
        return beside.machine.digest(), results


@pytest.mark.parametrize("width", WIDTHS)
def test_one_machine_stands_all_of_them(width: str) -> None:
    _, results = everything_at_once(width, 1)
    assert {verdict for verdict, _ in results} <= {"ok", "crash"}


@pytest.mark.parametrize("width", WIDTHS)
def test_they_go_the_same_way_each_time(width: str) -> None:
    assert everything_at_once(width, 2) == everything_at_once(width, 1)


# --- what the files say ---------------------------------------------------------------------------
def test_every_file_is_in_the_list() -> None:
    listed = re.findall(r"X\((\w+)\)", (FOLDER / "list.h").read_text())
    assert listed == [attack.name for attack in attacks()]


def test_every_check_is_there_and_can_be_left_out() -> None:
    named = {check for attack in attacks() for check in attack.checks}
    assert named == set(weakened.WEAKENED)
    for check in named:
        holder, name = weakened.found(check)
        assert hasattr(holder, name)


def test_a_check_that_was_renamed_is_missed() -> None:
    with pytest.raises(LookupError, match=r"^there is no hypervisor\.mm\.tlb\.Tlb\.nothing$"):
        weakened.found("hypervisor.mm.tlb.Tlb.nothing")


def test_the_table_for_readers_is_the_files() -> None:
    rows = [
        f"| `{attack.name}` | {attack.way_out} | {attack.rule} | "
        + ", ".join(f"`{check}`" for check in attack.checks)
        + " |"
        for attack in attacks()
    ]
    assert "\n".join(rows) in (FOLDER / "README.md").read_text()
