"""`ring1 inspect`: where it stops, what it shows, what it refuses, and its exit statuses."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from cli.exits import Exit
from cli.main import main
from guests import WIDTHS
from hypervisor.mm.audit_subject import AuditError


def inspect(*args: str) -> int:
    return main(["inspect", *args, "--memory", "16"])


@pytest.mark.parametrize("width", WIDTHS)
def test_without_a_word_it_shows_a_walk_the_frames_and_the_tables(
    width: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert inspect("hello", "--width", width) == Exit.MET
    shown = capfd.readouterr()
    assert re.search(r"^=> maddr 0x\w+, which may be read", shown.out, re.MULTILINE)
    assert "d1 owns 4097 frames" in shown.out
    assert re.search(r"^d1 has \d+ page tables$", shown.out, re.MULTILINE)
    assert "hello powered off after" in shown.err
    assert "hello from" not in shown.out, "the guest's console is not shown"


@pytest.mark.parametrize("width", WIDTHS)
def test_lines_fit_80_columns(
    width: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    looks = ("rip", "0", "cr2", "frames", "tables", "p2m", "frames l1", "frames l2")
    assert inspect("traps", "--width", width, *looks) == Exit.MET
    assert [line for line in capfd.readouterr().out.splitlines() if len(line) > 80] == []


def test_it_stops_at_a_symbol(capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect("hello", "--at", "guest_main", "rip") == Exit.MET
    assert " guest_main+0x0, by the kernel tables of d1v0" in capfd.readouterr().out


@pytest.mark.parametrize(
    "stop",
    [("--after", "1000"), ("--calls", "3"), ("--until", "^CS e019"), ("--at", "report_and_exit")],
)
def test_it_stops_where_it_is_told_to(
    stop: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert inspect("hello", *stop, "p2m") == Exit.MET
    assert capfd.readouterr().err.startswith("ring1: hello stopped after 0.0000")


def test_it_stops_in_the_handler_of_a_fault(capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect("traps", "--faults", "1", "rip") == Exit.MET
    assert "trap_entries+" in capfd.readouterr().out


def test_a_stop_that_is_not_reached_is_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect("hello", "--calls", "100000", "tables") == Exit.UNMET
    shown = capfd.readouterr()
    assert "hello powered off before it was where it was to stop" in shown.err
    assert "d1 has 2 page tables" in shown.out


def test_a_crash_is_looked_at_and_is_three(capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect("crash", "cr2") == Exit.CRASHED
    shown = capfd.readouterr().out
    assert shown.startswith("0x00decade, by the kernel tables of d1v0\n")
    assert "=> not mapped: the L2 entry is not present, so an access is a page fault" in shown


def test_json_has_one_object_for_each_word(capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect("hello", "--json", "rip", "frames l2", "p2m 7") == Exit.MET
    walk, frames, p2m = map(json.loads, capfd.readouterr().out.splitlines())
    assert walk["what"] == "walk rip"
    assert [level["level"] for level in walk["seen"]["levels"]] == [2, 1]
    assert all(report["adds_up"] for report in walk["seen"]["frames"])
    assert [frame["type"] for frame in frames["seen"]] == ["L2"]
    assert p2m["seen"][0]["pfn"] == p2m["seen"][0]["m2p"] == 7


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["0x123456789a"], "0x123456789a is no address of a 32-bit guest: it has over 32 bits"),
        (["nonesuch"], "'nonesuch' is neither an address nor a symbol of hello"),
        (["rip+many"], "'many' is no offset: decimal or 0x"),
        (["frame"], "'frame' should be: frame MFN"),
        (["frame x"], "'x' is no frame number: decimal or 0x"),
        (["frame -1"], "-1 is no frame: it is negative"),
        (["frames l9"], "'l9' is no type of a frame: they are none, writable, l1"),
        (["look here"], "'look' is none of walk, frame, frames, tables, p2m"),
        (["walk 0 kernel"], "'kernel' is no set of tables: those are `user` and `v1`"),
        (["walk 0 user"], "d1v0 has no user page table"),
        (["walk 0 v3"], "d1 has no vCPU 3"),
        (["walk 0 vx"], "'x' is no vCPU's number: decimal or 0x"),
        (["walk '"], "No closing quotation"),
        ([""], "nothing is asked for: an empty argument"),
        (["--at", "nonesuch"], "--at: 'nonesuch' is neither an address nor a symbol of hello"),
        (["--until", "("], "--until '(' is no regular expression"),
        (["--until", "x", "--at", "0"], "only one place to stop can be given, not --at and"),
    ],
)
def test_a_mistake_is_one_sentence_and_two(
    args: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert inspect("hello", *args) == Exit.USAGE
    *_, last = capfd.readouterr().err.splitlines()
    assert last.startswith(f"ring1: {said}")


def test_what_is_not_canonical_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect("hello", "--width", "x86_64", "0x900000000000") == Exit.USAGE
    assert "is not canonical: bits 63 to 47 must all be equal" in capfd.readouterr().err


def test_boot_shows_what_is_asked_for_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", "crash", "--inspect", "cr2", "--inspect", "tables"]) == Exit.CRASHED
    shown = capfd.readouterr().out
    assert "0x00decade, by the kernel tables of d1v0" in shown
    assert "d1 has 2 page tables" in shown


def test_boot_refuses_a_bad_word_before_it_boots(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", "hello", "--inspect", "walk"]) == Exit.USAGE
    assert capfd.readouterr() == ("", "ring1: 'walk' should be: walk ADDR [user]\n")


def test_step_has_the_same_words(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    commands = "h\nwalk rip\nframes\ntables\np2m 3\nframe 99999999\nwalk nonesuch\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(commands))
    assert main(["step", "hello", "--memory", "16", "--audit"]) == Exit.MET
    shown = capfd.readouterr().out
    assert "hypercall_page+" in shown
    assert "d1 owns 4097 frames" in shown
    assert "d1 has 2 page tables" in shown
    assert re.search(r"^pfn 0x3 -> mfn 0x\w+ of d1; M2P 0x3: they agree$", shown, re.MULTILINE)
    assert "mfn 0x5f5e0ff is beyond the machine's" in shown
    assert "'nonesuch' is neither an address nor a symbol of hello" in shown


@pytest.mark.parametrize("command", ["boot", "inspect"])
def test_help_keeps_its_tables_in_lines(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == Exit.MET
    assert re.search(r"^    2  bad usage or input", capfd.readouterr().out, re.MULTILINE)


# --- the audit ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "command", [("boot", "traps"), ("inspect", "traps", "p2m"), ("demo",)], ids=lambda c: c[0]
)
def test_an_audited_run_is_the_same_run(
    command: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(list(command)) == Exit.MET
    plain = capfd.readouterr()
    assert main([*command, "--audit"]) == Exit.MET
    assert capfd.readouterr() == plain


@pytest.mark.parametrize("command", ["boot", "inspect"])
def test_a_failed_audit_says_which_frame_is_wrong_and_how(
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def broken(*_: object) -> None:
        raise AuditError("mfn 0x12 is d1's: type L1 x1, 3 references, but 2 and 1 uses exist")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hypervisor.mm.audit.audit", broken)
    assert main([command, "hello", "--audit"]) == Exit.BUG
    said = capfd.readouterr().err
    assert "this is a bug in ring1 (AuditError: mfn 0x12 is d1's: type L1 x1" in said
    assert "3 references, but 2 and 1 uses exist" in next(tmp_path.glob("*.txt")).read_text()
