"""The text form of a trace: one object a line, readable again, and what a broken file says."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from hypervisor.abi.xen import HypercallNr
from hypervisor.probes import Entry
from hypervisor.trace.jsonl import FORMAT, JsonlRecorder, TraceError, as_object, read_trace
from hypervisor.trace.names import entry_name, shown_arguments

HYPERCALL = Entry(1_250, 1, 0, "hypercall", 0xC0002227, 17, (0, 0xFFFFFFFF), 0x40011, "", 0xABC)
REFUSED = Entry(2_000, 1, 0, "hypercall", 0xC0002227, 32, (3,), -22 & 0xFFFFFFFF, "port 9", 1)
FAULT = Entry(3_000, 2, 1, "exception", 0xC0001000, 14, (2, 0x1234), None, "", 2)


def recorded(*entries: Entry) -> str:
    stream = io.StringIO()
    recorder = JsonlRecorder(stream, {"ps_per_byte": 250})
    for entry in entries:
        recorder(entry)
    return stream.getvalue()


def test_head_holds_the_machines_constants() -> None:
    assert json.loads(recorded()) == {"format": FORMAT, "ps_per_byte": 250}


def test_entry_is_one_line_with_names_and_hexadecimal_values() -> None:
    line = recorded(HYPERCALL).splitlines()[1]
    assert json.loads(line) == {
        "ps": 1250, "dom": 1, "vcpu": 0, "kind": "hypercall", "name": "xen_version", "nr": 17,
        "rip": "0xc0002227", "args": ["0x0", "0xffffffff"], "result": "0x40011", "sum": "00000abc",
        "op": "version",
    }  # fmt: skip


def test_refusal_carries_its_reason() -> None:
    assert as_object(REFUSED)["why"] == "port 9"


def test_exception_has_no_result() -> None:
    row = as_object(FAULT)
    assert row["name"] == "#PF"
    assert "result" not in row


def test_written_trace_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(recorded(HYPERCALL, FAULT))
    head, rows = read_trace(path)
    assert head["ps_per_byte"] == 250
    assert list(rows) == [as_object(HYPERCALL), as_object(FAULT)]


def test_line_cut_off_at_the_end_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(recorded(HYPERCALL, FAULT)[:-20])
    assert len(list(read_trace(path)[1])) == 1


def test_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(recorded() + "garbage\n" + recorded())
    with pytest.raises(TraceError, match=r"^line 2 of '.*t.jsonl' is not a JSON object$"):
        list(read_trace(path)[1])


@pytest.mark.parametrize("text", ["", "text\n", "[]\n", '{"format": "another"}\n', "\0\xff"])
def test_other_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(TraceError, match=r"is not a trace of ring1: its first line is no head$"):
        read_trace(path)


@pytest.mark.parametrize(
    ("kind", "number", "name"),
    [
        ("hypercall", 32, "event_channel_op"),
        ("hypercall", 999, "hypercall 999"),
        ("exception", 13, "#GP"),
        ("exception", 31, "vector 31"),
        ("interrupt", 0x80, "int 0x80"),
        ("syscall", 0, "syscall"),
    ],
)
def test_number_gets_the_name_a_person_knows(kind: str, number: int, name: str) -> None:
    assert entry_name(kind, number) == name


@pytest.mark.parametrize(
    ("number", "args", "operation"),
    [
        (HypercallNr.EVENT_CHANNEL_OP, (4, 0x1000), "send"),
        (HypercallNr.XEN_VERSION, (0, 0), "version"),
        (HypercallNr.MEMORY_OP, (3 << 6 | 1, 0), "decrease_reservation"),
        (HypercallNr.MEMORY_OP, (63, 0), None),
        (HypercallNr.MMUEXT_OP, (1, 1, 0, 0), None),
        (HypercallNr.SET_TRAP_TABLE, (4,), None),
        (63, (1,), None),
    ],
)
def test_operation_has_its_name(number: int, args: tuple[int, ...], operation: str | None) -> None:
    entry = replace(HYPERCALL, number=number, args=args)
    assert as_object(entry).get("op") == operation
    first = operation or f"{args[0]:#x}"
    assert shown_arguments(entry) == [first, *[f"{arg:#x}" for arg in args[1:]]]
