"""`ring1 run`: files to summaries, pictures, traces, statuses; and nothing half-run."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import ExitStack
from fcntl import ioctl
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from cli.ensemble import Ensemble
from cli.exits import Exit
from cli.main import main
from cli.screen import bar, milliseconds, screen, summary

MS = 10**6

BUSY = """
title = "busy and idle"

[[domains]]
name = "busy"
kernel = "bench"
cmdline = "loop=alu n=100000000"
memory_mib = 4
weight = 3

[[domains]]
name = "film"
kernel = "decoder"
cmdline = "frames=2"
memory_mib = 4
start_ms = 5

[run]
until_ms = 60
"""

REBOOTS = """
[[domains]]
name = "again"
kernel = "crash"
cmdline = "how=shutdown"
memory_mib = 4
on_crash = "restart"
count = 1

[run]
until_ms = 0.05
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "busy.toml"
    path.write_text(BUSY)
    return path


def run_json(path: Path, capfd: pytest.CaptureFixture[str], *options: str) -> tuple[int, Any]:
    status = main(["run", str(path), "--json", *options])
    return status, json.loads(capfd.readouterr().out)


def test_runs_as_long_as_the_file_says(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, told = run_json(file, capfd)
    assert (status, told["why"]) == (Exit.MET, "ran as long as it was to")
    assert told["virtual_ns"] == 60 * MS
    busy, film = told["domains"]
    assert busy["cpu_ns"] + film["cpu_ns"] == pytest.approx(60 * MS, rel=0.01)
    assert 0.9 < busy["due"] + film["due"] <= 1
    assert film["wakeups"] >= 1
    assert {"ns", "what"} == set((told["events"] or [{"ns": 0, "what": ""}])[0])


def test_consoles_come_tagged_and_a_table_ends_it(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(file)]) == Exit.MET
    shown = capfd.readouterr()
    assert "film | decoder: 2 frames at 30 Hz" in shown.out
    assert re.search(r"^busy +3 +\d+\.\d ms +\d+\.\d% ", shown.out, re.MULTILINE)
    assert "in 60.0 ms of virtual time, " in shown.out
    assert shown.err == "ring1: ran as long as it was to\n"


def test_until_on_the_command_line_wins(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, told = run_json(file, capfd, "--until", "7.5")
    assert told["virtual_ns"] == 7_500_000


def test_run_ends_when_every_domain_has(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[[domains]]\nkernel = 'hello'\nmemory_mib = 4\ncount = 3\n")
    status, told = run_json(path, capfd)
    assert (status, told["why"]) == (Exit.MET, "every domain has ended")
    assert [row["name"] for row in told["domains"]] == ["hello1", "hello2", "hello3"]
    assert {row["state"] for row in told["domains"]} == {"powered off"}


@pytest.mark.parametrize(
    ("domain", "status", "said"),
    [
        ("kernel = 'crash'", Exit.CRASHED, "every domain has ended"),
        ("kernel = 'crash'\non_crash = 'destroy'", Exit.CRASHED, "every domain has ended"),
        ("kernel = 'bench'\ncmdline = 'loop=none'", Exit.CRASHED, "every domain has ended"),
    ],
)
def test_a_crash_has_its_status(
    domain: str, status: Exit, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.toml"
    path.write_text(f"[[domains]]\nmemory_mib = 4\n{domain}\n")
    got, told = run_json(path, capfd)
    assert (got, told["why"]) == (status, said)


def test_a_domain_that_is_restarted_keeps_its_row(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.toml"
    path.write_text(REBOOTS)
    status, told = run_json(path, capfd)
    (row,) = told["domains"]
    assert row["restarts"] >= 2
    assert row["domid"] == row["restarts"] + 1
    assert 0 < row["cpu_ns"] <= told["virtual_ns"]
    assert status == Exit.MET
    assert told["events"][-1]["what"] == f"again starts again, as d{row['domid']}"


# --- the picture and the trace --------------------------------------------------------------------
def test_picture_shows_what_the_summary_says(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "p.svg"
    _, told = run_json(file, capfd, "--gantt", str(picture))
    root = ET.parse(picture).getroot()
    svg = "{http://www.w3.org/2000/svg}"
    ran = 0.0
    for rect in root.iter(f"{svg}rect"):
        title = rect.find(f"{svg}title")
        if title is not None and re.match(r"busy \(d1v0\) on a CPU: ", title.text or ""):
            ran += float(rect.get("width", ""))
    assert ran / 1000 == pytest.approx(told["domains"][0]["share"], abs=0.01)
    assert "busy and idle" in [text.text for text in root.iter(f"{svg}text")]


def test_pictures_and_traces_of_two_runs_are_the_same(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in ("1", "2"):
        picture, trace = tmp_path / f"{number}.svg", tmp_path / f"{number}.jsonl"
        main(["run", str(file), "--plain", "--gantt", str(picture), "--trace", str(trace)])
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes().replace(
        b">2<", b">1<"
    )
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert '"dom":2' in (tmp_path / "1.jsonl").read_text()


# --- refusals -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("weight", "wait", r"busy.toml:9: \[domains 1\] 'wait' is not known here"),
        ('"decoder"', '"decoders"', "domain 'film': cannot read the kernel '.*/decoders': no such"),
        (
            "start_ms",
            "ramdisk = 'x'\nstart_ms",
            "domain 'film': cannot read the ramdisk '.*/x': no",
        ),
        (
            "[run]",
            "[machine]\nmemory_mib = 7\n[run]",
            "domain 'film' cannot be made: the machine c",
        ),
        ("[run]", "[machine]\nswitch_cost_ns = 999999999\n[run]", "the machine: switch_cost_ns is"),
        ('"decoder"', '"busy.toml"', "domain 'film' cannot be made: "),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_has_run(
    old: str, new: str, said: str, file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file.write_text(BUSY.replace(old, new, 1))
    assert main(["run", str(file)]) == Exit.USAGE
    shown = capfd.readouterr()
    assert re.match("ring1: " + said, shown.err)
    assert shown.out == ""


def test_a_picture_that_cannot_be_written_is_refused_before_the_run(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(file), "--gantt", str(tmp_path / "no" / "p.svg")]) == Exit.USAGE
    assert "ring1: cannot write the picture" in capfd.readouterr().err


def test_a_file_that_is_not_there_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "/nonexistent/x.toml"]) == Exit.USAGE
    assert capfd.readouterr().err == (
        "ring1: cannot read '/nonexistent/x.toml': no such file or directory\n"
    )


# --- the screen -----------------------------------------------------------------------------------
def drawn(ensemble: Ensemble, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(screen(ensemble, width, height))
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_screen_fits_and_says_who_runs(file: Path, width: int, height: int) -> None:
    file.write_text(BUSY.replace('name = "busy"', 'name = "busy"\ncount = 27'))
    with ExitStack() as stack:
        ensemble = Ensemble.start(stack, file, records=False)
        ensemble.machine.run(time_limit_ns=20 * MS)
        lines = drawn(ensemble, width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert re.match(r"busy and idle   20\.0 ms of 60\.0 ms   bvt   on the CPU: busy\d+", lines[0])
    assert any(re.match(r" busy1 +3 +\w+ ", line) for line in lines)
    assert ("... and " in "\n".join(lines)) is (height == 24)


def test_looking_changes_nothing(file: Path) -> None:
    digests = []
    for looks in (False, True):
        with ExitStack() as stack:
            ensemble = Ensemble.start(stack, file, records=looks)
            for stop in range(1, 31) if looks else (30,):
                ensemble.machine.run(time_limit_ns=stop * MS)
                ensemble.rows()
            digests.append(ensemble.machine.digest())
    assert digests[0] == digests[1]


def test_summary_fits_80_columns(file: Path) -> None:
    with ExitStack() as stack:
        ensemble = Ensemble.start(stack, file, records=False)
        ensemble.machine.run(time_limit_ns=60 * MS)
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(summary(ensemble.rows(), 60 * MS))
        lines = console.export_text().splitlines()
    assert len(lines) == 4
    assert lines[0].split() == [
        "Domain", "Wt", "CPU", "time", "Share", "Due", "Switches", "Wake-ups", "Upcalls", "Calls",
        "In", "the", "end",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("share", "text"), [(0, ""), (0.5, "█████"), (1, "█" * 10), (2, "█" * 10), (0.0125, "▏")]
)
def test_bar_is_as_long_as_the_share(share: float, text: str) -> None:
    assert bar(share).rstrip() == text
    assert len(bar(share)) == 10


def test_times_are_told_in_ms_or_s() -> None:
    assert [milliseconds(ns) for ns in (0, 1_250_000, 12 * 10**9)] == [
        "0.0 ms",
        "1.2 ms",
        "12.00 s",
    ]


def on_a_terminal(file: Path, *, rows: int = 24, columns: int = 80) -> tuple[int, str]:
    """Run on a terminal and type ^C when the screen is there; status and what was shown."""
    main_fd, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "run", str(file), "--until", "1e9"],
        stdin=terminal, stdout=terminal, stderr=terminal, close_fds=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": str(rows)},
    )  # fmt: skip
    os.close(terminal)
    shown = bytearray()
    interrupted = False
    while True:
        try:
            data = os.read(main_fd, 65536)
        except OSError:  # EIO: the other side is closed
            break
        if not data:
            break
        shown += data
        if b"on the CPU:" in shown and not interrupted:
            interrupted = True
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
    os.close(main_fd)
    return process.wait(), shown.decode()


def test_interrupted_on_a_terminal_it_ends_with_the_summary(file: Path) -> None:
    status, shown = on_a_terminal(file)
    assert status == Exit.INTERRUPTED
    assert "ring1: interrupted" in shown
    assert "of virtual time" in shown.split("\x1b[?1049l")[-1], "behind the screen, the table"
