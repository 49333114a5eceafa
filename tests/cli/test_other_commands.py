"""`guests`, `about`, `demo`: what they print is true of this tree."""

from __future__ import annotations

import json

import pytest

from cli.exits import Exit
from cli.main import main
from hypervisor.abi.xen import HypercallNr


def test_guests_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["guests"]) == Exit.MET
    shown = capfd.readouterr().out
    for name in ("hello", "traps", "ticker"):
        assert name in shown


def test_guests_as_json_name_their_widths(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["guests", "--json"]) == Exit.MET
    rows = json.loads(capfd.readouterr().out)
    assert {row["name"]: row["widths"] for row in rows}["hello"] == ["x86_32", "x86_32p", "x86_64"]


def test_about_has_a_row_for_every_hypercall(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["about"]) == Exit.MET
    shown = capfd.readouterr().out
    assert "2.1.4" in shown
    for number in HypercallNr:
        assert number.name.lower() in shown


def test_about_gives_a_reason_for_all_that_is_absent(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["about", "--json"]) == Exit.MET
    rows = json.loads(capfd.readouterr().out)["hypercalls"]
    assert all(row["present"] or row["reason"] for row in rows)


def test_about_one_hypercall_lists_its_operations(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["about", "--hypercall", "event_channel_op"]) == Exit.MET
    assert "bind_interdomain" in capfd.readouterr().out


def test_about_an_unknown_hypercall_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["about", "--hypercall", "fly"]) == Exit.USAGE
    assert (
        capfd.readouterr().err == "ring1: no hypercall is called 'fly'; `ring1 about` lists them\n"
    )


def test_demo_ends_by_itself_with_all_guests_well(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == Exit.MET
    shown = capfd.readouterr().out
    for tag in ("d1 hello  x86_32  |", "d3 hello  x86_64  |", "d6 traps  x86_32p |"):
        assert tag in shown
    assert shown.count("powered off") == 6
