"""`ring1 boot` from end to end on built-in guests: statuses, scripts, limits, files, digests."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

from cli.exits import Exit
from cli.main import main
from guests import WIDTHS, guest_path
from hypervisor.abi.elfnote import ElfNote
from tests.support.elf_writer import KernelSpec, generic_notes, word, write_elf


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["hello", "traps"])
def test_built_in_guest_passes(name: str, width: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", name, "--width", width, "--memory", "16"]) == Exit.MET
    shown = capfd.readouterr()
    assert f"ring1: PASS {name}" in shown.out
    assert f"{name} powered off after" in shown.err


def test_kernel_of_32_bits_says_ring_1(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", "hello", "--width", "x86_32"]) == Exit.MET
    assert "ring 1" in capfd.readouterr().out


def test_own_kernel_is_booted_by_its_path_too() -> None:
    assert main(["boot", str(guest_path("hello", "x86_64")), "--memory", "16"]) == Exit.MET


def test_met_expectation_is_zero_and_ends_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", "hello", "--expect", "ring1: PASS"]) == Exit.MET
    assert "1 of 1 expectations met after" in capfd.readouterr().err


def test_unmet_expectation_is_one_and_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", "hello", "--expect", "PASS", "--expect", "goodbye"]) == Exit.UNMET
    said = capfd.readouterr().err
    assert said.startswith("ring1: expectation 2 of 2 was not met: 'goodbye' did not appear\n")
    assert "its console's last lines:" in said
    assert "  | ring1: PASS hello" in said


def test_time_limit_ends_a_run_at_its_virtual_time(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", "hello", "--time-limit", "0.000001"]) == Exit.UNMET
    assert "still running after 0.000001 s of virtual time" in capfd.readouterr().err


def test_time_out_ends_a_run(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", "traps", "--timeout", "0.001"]) == Exit.UNMET
    assert "traps was still running after 0.001 s" in capfd.readouterr().err


def test_same_run_gives_the_same_digest(capfd: pytest.CaptureFixture[str]) -> None:
    digests = set()
    for _ in range(2):
        assert main(["boot", "hello", "--digest"]) == Exit.MET
        digests.add(capfd.readouterr().out.splitlines()[-1])
    (digest,) = digests
    assert digest.startswith("digest: ")
    assert len(digest) == len("digest: ") + 64


def test_another_seed_gives_another_digest(capfd: pytest.CaptureFixture[str]) -> None:
    digests = set()
    for seed in ("0", "5"):
        assert main(["boot", "hello", "--digest", "--seed", seed]) == Exit.MET
        digests.add(capfd.readouterr().out.splitlines()[-1])
    assert len(digests) == 2


def test_audited_run_passes() -> None:
    assert main(["boot", "hello", "--audit"]) == Exit.MET


def test_trace_is_written_and_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.jsonl"
    assert main(["boot", "hello", "--trace", str(path)]) == Exit.MET
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["ps_per_byte"] == 250
    assert lines[-1]["name"] == "sched_op"
    capfd.readouterr()
    assert main(["trace", "show", str(path), "--grep", "sched_op", "--json"]) == Exit.MET
    assert json.loads(capfd.readouterr().out.splitlines()[-1]) == lines[-1]
    assert main(["trace", "show", str(path), "--kind", "hypercall", "--limit", "2"]) == Exit.MET
    assert "2 entries" in capfd.readouterr().out


def test_traces_of_the_same_run_are_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "1", tmp_path / "2"]
    for path in paths:
        assert main(["boot", "hello", "--width", "x86_64", "--trace", str(path)]) == Exit.MET
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with kernels that are none."""
    monkeypatch.chdir(tmp_path)
    good = guest_path("hello", "x86_32").read_bytes()
    (tmp_path / "text").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "truncated").write_bytes(good[: len(good) // 2])
    (tmp_path / "noteless").write_bytes(write_elf(KernelSpec()))
    pvh = [*generic_notes(), (ElfNote.PHYS32_ENTRY, word(0x100000))]
    (tmp_path / "pvh").write_bytes(write_elf(KernelSpec(notes=pvh)))
    (tmp_path / "arm").write_bytes(good[:18] + struct.pack("<H", 40) + good[20:])
    (tmp_path / "kernel").write_bytes(good)
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["./text"], r"not an ELF"),
        (["./empty"], r"not an ELF"),
        (["./truncated"], r"truncated ELF file: its section headers reach to"),
        (["./noteless"], r"has no Xen notes"),
        (["./arm"], r"not an x86 kernel: ELF machine 40"),
        (["./pvh"], r"the kernel only has a PVH entry (PHYS32_ENTRY 0x100000)"),
        (["./folder"], r"cannot read the kernel 'folder': is a directory"),
        (["./nothing"], r"there is no file './nothing'"),
        (["./kernel", "--width", "x86_64"], r"it runs as x86_32, not as x86_64"),
        (["./kernel", "--memory", "1"], r"KiB"),
        (["./kernel", "--ramdisk", "nothing"], r"cannot read the ramdisk 'nothing'"),
        (["./kernel", "--ramdisk", "folder"], r"cannot read the ramdisk 'folder'"),
        (["./kernel", "--trace", "folder"], r"cannot write the trace 'folder'"),
        (["./kernel", "--trace", "nothing/t"], r"cannot write the trace 'nothing/t'"),
        (["./kernel", "--expect", "("], r"'(' is not a regular expression"),
        (["./kernel", "--send", r"\q"], r"\q is no C escape"),
        (["./kernel", "--cmdline", "x" * 5000], r"5000 bytes, start_info holds 1023"),
    ],
)
def test_bad_input_is_two_and_one_sentence(
    inputs: Path, args: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["boot", *args]) == Exit.USAGE
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("ring1: ")
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert not list(inputs.glob("ring1-report*"))


@pytest.mark.parametrize(
    "args",
    [
        ["--memory", "0"],
        ["--memory", "much"],
        ["--width", "x86_16"],
        ["--timeout", "0"],
        ["--time-limit", "-1"],
        ["--clock", "sun"],
        ["another"],
    ],
)
def test_bad_usage_is_two(args: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", "hello", *args]) == Exit.USAGE
    assert "Usage: ring1 boot" in capfd.readouterr().err


def test_file_of_a_built_ins_name_is_booted_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(guest_path("traps", "x86_32"), tmp_path / "hello")
    monkeypatch.chdir(tmp_path)
    assert main(["boot", "./hello"]) == Exit.MET
    assert "PASS traps" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("width", "memory", "sentence"),
    [
        ("x86_32", 4096, "x86_32 page tables reach 4096 MiB of machine memory, this machine has"),
        ("x86_64", 1 << 20, "MiB of memory for a machine"),
    ],
)
def test_more_memory_than_there_can_be_is_two(
    width: str, memory: int, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["boot", "hello", "--width", width, "--memory", str(memory)]) == 2
    assert sentence in capfd.readouterr().err
